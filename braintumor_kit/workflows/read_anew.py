"""The data of a run, read in a process that others began, which may be on another machine."""

from collections.abc import Sequence
from pathlib import Path

from braintumor_kit.contracts import InputError
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.workflows.material import Material, gather
from braintumor_kit.workflows.open_data import open_dataset
from braintumor_kit.workflows.unchanged import split_digests


def check_seen(whole: Path) -> None:
    """Finds that this machine of a cluster does not see the folder of the whole.

    Raises:
        InputError: where that is so.
    """
    if not (whole / "record.json").is_file():
        raise InputError(
            f"'{whole}' is not to be seen from every machine of the cluster: the folder of runs and the data have to "
            "lie where all see them under the same path."
        )


def gather_anew(whole: Path, recipe: Recipe, digests: Sequence[str]) -> list[Material]:
    """The data of a recipe.

    Args:
        whole: the folder of the run, which every machine has to see.
        digests: of the splits, which the data have to come to.

    Raises:
        InputError: where the folder is not to be seen, or the data are others here.
    """
    check_seen(whole)
    quiet = Reporter()
    materials = gather(recipe, open_dataset(recipe, quiet), quiet)
    check_digests(materials, digests)
    return materials


def check_digests(materials: Sequence[Material], digests: Sequence[str]) -> None:
    """Finds that data came out otherwise than in the process that asked.

    Raises:
        InputError: where they did.
    """
    if split_digests(materials) != list(digests):
        raise InputError("the data are not the same in every process: their splits come out otherwise.")
