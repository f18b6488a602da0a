"""A run's own data set, read again from its source."""

from collections.abc import Mapping
from dataclasses import dataclass

from braintumor_kit.data.cache import Slices, decoded_slices
from braintumor_kit.data.dataset import Dataset
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import recipe_of
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.registry import Registry
from braintumor_kit.runs import Run, table_of
from braintumor_kit.workflows.open_data import open_dataset, tell_left_out


@dataclass(frozen=True)
class OwnData:
    """A run's own data set as it is now; samples that cannot be read are left out.

    Attributes:
        dataset, slices: what it holds.
        rows: of the run's `split.csv`, by the sample's id.
        unchanged: whether it is what the run saw.
    """

    dataset: Dataset
    slices: Slices
    rows: Mapping[str, Mapping[str, str]]
    unchanged: bool

    @property
    def splits(self) -> list[str]:
        """The splits that the run has, of each of its samples, whether they can be read any more or not."""
        return [row["split"] for row in self.rows.values()]

    def column(self, name: str) -> list[str | None]:
        """What `split.csv` says of each sample; None of samples that the run did not see."""
        return [self.rows[sample.id][name] if sample.id in self.rows else None for sample in self.dataset.samples]


def own_data(run: Run, pixels: PixelsTable, registry: Registry, reporter: Reporter) -> OwnData:
    """Reads a run's data set again, and says so where it has changed.

    Raises:
        InputError: where the data are not at hand any more, or the run has not finished.
    """
    recipe = recipe_of(run.resolved, run.folder / "resolved.json", registry)
    rows = {row["id"]: row for row in table_of(run, "split.csv")}
    dataset = open_dataset(recipe, reporter, "skip")
    with reporter.bar("decoding") as progress:
        dataset, slices = decoded_slices(dataset, pixels, "skip", progress)
    tell_left_out(dataset, reporter)
    unchanged = dataset.digest == run.record.get("data_digest")
    if not unchanged:
        reporter.say("the data set has changed since the run: what it holds now is used")
    return OwnData(dataset, slices, rows, unchanged)
