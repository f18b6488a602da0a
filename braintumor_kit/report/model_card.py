"""A model card in the layout of the Hugging Face hub (https://huggingface.co/docs/hub/model-cards): metadata in YAML,
which JSON is a part of, then what the model is for, how it was trained and what its figures are worth."""

import json
from typing import Any

from braintumor_kit.evaluation.metrics import HEADLINES
from braintumor_kit.report.page import rendered
from braintumor_kit.report.run_page import PARTS, Told, class_counts


def model_card(told: Told) -> str:
    """The card, as Markdown."""
    return rendered(
        "model_card.md",
        metadata=json.dumps(_metadata(told), indent=2, allow_nan=False),
        told=told,
        side=int(told.record["recipe"]["pixels"]["image_size"]),
        part=told.part,
        parts=PARTS,
        judged=told.metrics[told.part],
        counts=class_counts(told.split, told.record["classes"]),
        caveats=told.caveats,
        headlines=list(HEADLINES),
    )


def _metadata(told: Told) -> dict[str, Any]:
    judged, source = told.metrics[told.part], told.record["recipe"]["source"]["name"]
    backbone = told.record["recipe"]["backbone"]["name"]
    figures = [*HEADLINES, "auroc", "ece"]
    results = {
        "task": {"type": "image-classification"},
        "dataset": {"name": source, "type": source, "split": told.part},
        "metrics": [{"type": name, "value": judged[name]} for name in figures if judged.get(name) is not None],
    }
    return {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["medical-imaging", "mri", "brain-tumor", "btkit", "research-only", backbone],
        "metrics": figures,
        "model-index": [{"name": told.name, "results": [results]}],
    }
