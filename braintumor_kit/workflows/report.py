"""`btkit report`: a run as one page and as a model card, from what its folder holds."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL.Image import DecompressionBombError

from braintumor_kit.contracts import InputError
from braintumor_kit.files import read_csv, read_json, read_text, write_text
from braintumor_kit.record import Record
from braintumor_kit.report.caveats import reported_part
from braintumor_kit.report.model_card import model_card
from braintumor_kit.report.run_page import MISTAKES, Mistake, Told, run_page, surest_first
from braintumor_kit.runs import Run, fold_runs, refuse_sweep, table_of

REPORT, CARD = "report.html", "model_card.md"


def write_reports(run: Run, place: Path | None = None) -> tuple[Path, Path]:
    """Writes `report.html` and `model_card.md` of a finished run into its folder, and those of its folds.

    Args:
        place: for the page, somewhere else.

    Raises:
        InputError: where the run has not finished, or a file of it is damaged.
        WorkError: where they cannot be written.
    """
    written = write_report(run, place)
    for fold in fold_runs(run):
        write_report(fold)
    return written


def write_report(run: Run, place: Path | None = None) -> tuple[Path, Path]:
    """The same of the run alone."""
    with damage_told(run):
        told = told_by(run, linked=place is None)
        texts = run_page(told), model_card(told)
        for text in texts:
            text.encode()
    paths = place or run.folder / REPORT, run.folder / CARD
    for path, text in zip(paths, texts, strict=True):
        write_text(path, text)
    return paths


@contextmanager
def damage_told(run: Run) -> Iterator[None]:
    """Files that are read well and hold something else than a run's own."""
    try:
        yield
    except (
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        OSError,
        SyntaxError,
        RecursionError,
        DecompressionBombError,
    ) as error:  # the latter of pictures
        raise InputError(
            f"'{run.folder}' cannot be reported: one of its files is damaged ({type(error).__name__}: {error})."
        ) from error


def told_by(run: Run, linked: bool = False) -> Told:
    """What a run's folder holds.

    Args:
        linked: whether the page will stand in it, beside its folds.

    Raises:
        InputError: where the run has not finished, or a file of it is damaged.
    """
    refuse_sweep(run)
    if not (run.folder / "metrics.json").is_file():
        raise InputError(f"run '{run.folder}' has no metrics.json: it has not finished.")
    metrics, explained = (
        read_json(run.folder / "metrics.json"),
        run.folder / "explanations" / "explanation_metrics.json",
    )
    if not metrics.get(part := reported_part(metrics)):
        raise InputError(f"{run.folder / 'metrics.json'} is damaged: it has no figures of validation or test.")
    predictions = table_of(run, "predictions.csv", ("id", "split", "label", "predicted"))
    folds = fold_runs(run)
    return Told(
        name=run.folder.resolve().name,
        record=Record.model_validate(run.record).model_dump(),
        metrics=metrics,
        split=table_of(run, "split.csv", ("id", "label", "split")),
        predictions=predictions,
        histories={fold.folder.name: _history(fold) for fold in folds} if folds else {"": _history(run)},
        mistakes=worst_mistakes(predictions, part, _overlays(run)),
        explained=read_json(explained) if explained.is_file() else None,
        evaluations=_evaluations(run),
        summary=_existing(run.folder / "explanations" / "summary.png"),
        samples=_existing((folds[0] if folds else run).folder / "figures" / "sample_sheet.png"),
        recipe=read_text(run.folder / "recipe.toml"),
        linked=linked,
    )


Overlays = Mapping[tuple[str, str, str], tuple[str, Path]]
"""Method and picture of maps, by the fold ("" of one training), the slice's id and the class that is explained."""


def worst_mistakes(predictions: Sequence[Mapping[str, str]], part: str, overlays: Overlays) -> list[Mistake]:
    """Slices of a split that were taken for another class, those first where the model was surest.

    Args:
        predictions: rows of `predictions.csv`.
    """
    wrong = [row for row in predictions if row["split"] == part and row["predicted"] != row["label"]]
    sure = [float(row[f"p_{row['predicted']}"]) for row in wrong]
    found = []
    for number in surest_first(sure, [row["id"] for row in wrong]):
        row = wrong[number]
        method, overlay = overlays.get((row.get("fold") or "", row["id"], row["predicted"]), ("", None))
        group = row.get("group") or ""
        found.append(Mistake(row["id"], group, row["label"], row["predicted"], sure[number], overlay, method))
    return found


def _overlays(run: Run) -> Overlays:
    """The overlays of slices as the model took them, of its worst mistakes before those of its other explanations."""
    found: dict[tuple[str, str, str], tuple[str, Path]] = {}
    folders = {str(number): fold.folder for number, fold in enumerate(fold_runs(run), start=1)} or {"": run.folder}
    for fold, folder in folders.items():
        for name in (MISTAKES, "explanations"):
            try:
                rows = read_csv(folder / name / "explanations.csv")
            except (OSError, ValueError, csv.Error):
                continue
            for row in rows:
                path = folder / name / (row.get("overlay") or "")
                if row["target"] == row["predicted"] and path.suffix == ".png" and path.is_file():
                    found.setdefault((fold, row["id"], row["predicted"]), (row["method"], path))
    return found


def _history(run: Run) -> list[dict[str, float]]:
    try:
        return [{name: float(value) for name, value in row.items()} for row in read_csv(run.folder / "history.csv")]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{run.folder / 'history.csv'} cannot be read: {error}.") from error


def _evaluations(run: Run) -> dict[str, Mapping[str, Any]]:
    """Judgements of the model on other slices, which `btkit evaluate` left."""
    paths = sorted((run.folder / "evaluations").glob("*/metrics.json"))
    found = {path.parent.name: read_json(path) for path in paths}
    return {name: figures for name, figures in found.items() if "accuracy" in figures}


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
