"""`btkit data index`: the fingerprints and patients of a source whose patients are known."""

from pathlib import Path

from braintumor_kit.contracts import InputError
from braintumor_kit.matching.patients import build_index, save_index
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import DataRecipe
from braintumor_kit.workflows.open_data import open_dataset, surveyed


def make_index(recipe: DataRecipe, title: str, path: Path, reporter: Reporter) -> tuple[int, int]:
    """Writes the index of a source.

    Returns:
        How many slices and patients it holds.

    Raises:
        InputError: where a slice has no patient.
        WorkError: where the file cannot be written.
    """
    on_bad_image = recipe.tables.source.on_bad_image
    dataset = open_dataset(recipe, reporter)
    dataset, records = surveyed(dataset, recipe.tables.pixels, on_bad_image, reporter)
    without = next((sample.id for sample in dataset.samples if sample.group is None), None)
    if without is not None:
        raise InputError(f"source '{recipe.source.info.name}' does not say whose slice '{without}' is: no index of it.")
    samples = dataset.samples
    patients = [str(sample.group) for sample in samples]
    ids, labels = [sample.id for sample in samples], [sample.label for sample in samples]
    save_index(build_index(title, records["thumbnail"], ids, labels, patients), path)
    return len(samples), len(set(patients))
