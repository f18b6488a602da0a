"""`run`: a recipe carried out, and what it came to."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from braintumor_kit.api.models import Model, load
from braintumor_kit.files import read_json, read_text
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import load_explainer, load_recipe
from braintumor_kit.recipe.shipped import find_recipe
from braintumor_kit.registry import Registry
from braintumor_kit.report.notebook import result_html
from braintumor_kit.runs import Run, find_run
from braintumor_kit.workflows.evaluate_explanations import Evaluation
from braintumor_kit.workflows.explain import Request
from braintumor_kit.workflows.explain_run import Wish, own_pictures
from braintumor_kit.workflows.explain_run import explain as explain_run
from braintumor_kit.workflows.report import REPORT, damage_told, told_by
from braintumor_kit.workflows.run import run_recipe


class Result:
    """What a finished run came to, read from its folder when it is asked for.

    Args:
        folder: of the run.

    Raises:
        InputError: where that is no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self._run = find_run(str(folder), Path())

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._run.folder

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """The content of `metrics.json`: figures of "train", "validation", "test"."""
        return read_json(self.folder / "metrics.json")

    @property
    def record(self) -> Mapping[str, Any]:
        """The content of `record.json`: how the run came about."""
        return self._run.record

    @property
    def report(self) -> Path:
        """The run on one page, `report.html`, where the recipe asks for it."""
        return self.folder / REPORT

    @cached_property
    def caveats(self) -> list[str]:
        """What the figures have to be read with, in sentences, the gravest first."""
        with damage_told(self._run):
            return told_by(self._run).caveats

    @cached_property
    def model(self) -> Model:
        """The model of the best epoch; a cross-validation has one a fold and none here."""
        return load(self.folder)

    def explain(
        self,
        *methods: str,
        split: str | None = None,
        limit: int | None = None,
        target: str = "predicted",
        thorough: bool = False,
        plugins: Sequence[str | Path] = (),
        quiet: bool = False,
    ) -> Mapping[str, Any]:
        """Explains slices of the run's own into `explanations/`, as `btkit explain --evaluate` does, and measures where
        the relevance lies: how much of it in the tumours' masks, beside chance and a blob at the centre.

        Args:
            methods: names of explainers; Grad-CAM where none is named.
            split: whose slices; test, or validation where the run has no test.
            limit: at most so many slices, evenly spaced.
            target: as `explain` has it.
            thorough: also take pixels away (insertion, deletion, ROAD) and shuffle the weights, which takes longer.

        Returns:
            The content of `explanation_metrics.json`.

        Raises:
            InputError: where a method, split or target does not fit, or the data are not at hand any more.
        """
        registry, told = _registry(plugins), _reporter(quiet)
        run, explained = own_pictures(str(self.folder), Path(), split, limit, registry, told)
        chosen = [load_explainer(name, {}, registry) for name in methods or ("gradcam",)]
        requests = [Request(one, plugin, pictures, target) for one, pictures in explained for plugin in chosen]
        wish = Wish(evaluation=Evaluation() if thorough else Evaluation(faithfulness=0, randomisation=0))
        metrics, _ = explain_run(run.folder / "explanations", requests, wish, told)
        return metrics or {}

    def __repr__(self) -> str:
        return f"Result({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        with damage_told(self._run):
            return result_html(self.folder.name, self.metrics, self.caveats)


def run(
    recipe: str | Path,
    *,
    runs: str | Path = "runs",
    name: str | None = None,
    plugins: Sequence[str | Path] = (),
    quiet: bool = False,
    **tables: Any,
) -> Result:
    """Trains, evaluates and explains as a recipe says; leaves a run folder, as `btkit run` does.

    Args:
        recipe: a file, or the name of a recipe that ships with btkit.
        runs: the folder for runs.
        name: of the run folder; by default <recipe>-<UTC time>-<6 hex>.
        plugins: folders of plugins of yours.
        quiet: say nothing on standard error; the run's log has it all the same.
        tables: what is changed of the recipe, such as seed=3, training={"epochs": 2}, source={"root": "data"}. Paths
            are relative to the working directory.

    Raises:
        InputError: where the recipe, the data or the weights are not as they have to be.
        WorkError: where the work fails on the way; the message says how to go on.
    """
    path = find_recipe(str(recipe))
    checked = load_recipe(path, (), _registry(plugins), tables)
    argv = ["braintumor_kit.run", str(recipe), *(f"{key}={value!r}" for key, value in tables.items())]
    done: Run = run_recipe(checked, read_text(path), Path(runs), name, argv, _reporter(quiet))
    return Result(done.folder)


def _registry(plugins: Sequence[str | Path]) -> Registry:
    return Registry.from_environment([Path(folder) for folder in plugins])


def _reporter(quiet: bool) -> Reporter:
    return Reporter(None if quiet else Console(stderr=True, force_jupyter=False))
