"""What a user asks `btkit explain` for, in plain values, and the requests that come of it in any process."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import load_explainer
from braintumor_kit.registry import Registry
from braintumor_kit.workflows.explain import Request
from braintumor_kit.workflows.explain_run import own_pictures
from braintumor_kit.workflows.named import FilePictures, files_in
from braintumor_kit.workflows.pictures import Pictures
from braintumor_kit.workflows.trained import Trained, plane_of, trained_of_argument


@dataclass(frozen=True)
class Found:
    """What is explained.

    Attributes:
        model: RUN, as it is found again.
        place: where explanations of it go, where the user says nothing.
        warning: what has to be said of the run; None where nothing has.
        explained: models, each with its pictures.
        requests: one a model and method.
    """

    model: str | None
    place: Path
    warning: str | None
    explained: Sequence[tuple[Trained, Pictures]]
    requests: Sequence[Request]

    @property
    def total(self) -> int:
        """How many pictures."""
        return sum(len(pictures.items) for _, pictures in self.explained)


@dataclass(frozen=True)
class AskedToExplain:
    """Models, pictures and methods as the command line names them.

    Attributes:
        model: RUN; None is the newest run under `runs`.
        images: files and folders; none for the run's own slices.
        methods: names of explainers, each with its options as JSON.
        plugins: folders of plugins.
        target, layer, split, limit, plane: as the options of these names.
    """

    model: str | None
    runs: Path
    images: tuple[str, ...]
    methods: tuple[tuple[str, str], ...]
    plugins: tuple[Path, ...]
    target: str
    layer: str | None = None
    split: str | None = None
    limit: int | None = None
    plane: str | None = None

    def find(self, reporter: Reporter) -> Found:
        """Opens models and pictures.

        Raises:
            InputError: where one of them is not to be had.
        """
        registry = Registry(self.plugins)
        methods = [load_explainer(name, json.loads(options), registry) for name, options in self.methods]
        files = files_in(self.images) if self.images else None  # before the model: it takes long to open
        explained: Sequence[tuple[Trained, Pictures]]
        if files is not None:
            trained = trained_of_argument(self.model, self.runs, any_end=True)
            named = list({one.name: one for one in files.pictures(self.plane or plane_of(trained.run))}.values())
            explained, place, warning = (
                [(trained, FilePictures(named, trained.pixels))],
                Path("explanations"),
                trained.warning,
            )
            model = self.model or str(trained.run.folder if trained.run else self.runs)
        else:
            run, explained = own_pictures(self.model, self.runs, self.split, self.limit, registry, reporter)
            place, warning, model = run.folder / "explanations", run.warning, self.model or str(run.folder)
        requests = [
            Request(trained, method, pictures, self.target, self.layer)
            for trained, pictures in explained
            for method in methods
        ]
        return Found(model, place, warning, explained, requests)

    def requests(self, reporter: Reporter) -> Sequence[Request]:
        return self.find(reporter).requests


def options_as_text(options: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Methods and their options, as `AskedToExplain` has them."""
    return tuple((name, json.dumps(values)) for name, values in options.items())
