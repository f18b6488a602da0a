"""When a trial stops: by hand, at rungs, among those that came as far."""

from pathlib import Path

import pytest

from braintumor_kit.files import write_csv
from braintumor_kit.recipe.sweep_table import AshaTable
from braintumor_kit.sweep.halving import FellBehindError, Halving


def history(folder: Path, name: str, accuracies: list[float]) -> Path:
    (folder / name).mkdir(exist_ok=True)
    rows = ((number, 1 - value, value) for number, value in enumerate(accuracies, start=1))
    write_csv(folder / name / "history.csv", ("epoch", "val_loss", "val_accuracy"), rows)
    return folder / name


def goes_on(folder: Path, epochs: int, select: str = "val_accuracy", grace: int = 1, reduction: int = 3) -> bool:
    try:
        Halving(folder, AshaTable(grace_epochs=grace, reduction=reduction), select).on_epoch_end(epochs - 1)
    except FellBehindError:
        return False
    return True


@pytest.mark.parametrize("select", ["val_accuracy", "val_loss"])
def test_one_in_so_many_goes_on(tmp_path: Path, select: str) -> None:
    """Of others at 0.1, 0.2, .. 0.9 the 66.7th percentile is 0.6333, between the sixth and the seventh."""
    for number in range(1, 10):
        history(tmp_path, f"trial-{number:04d}", [number / 10])
    assert goes_on(history(tmp_path, "trial-0010", [0.64]), 1, select)
    assert not goes_on(history(tmp_path, "trial-0010", [0.63]), 1, select)


def test_the_first_at_a_rung_goes_on(tmp_path: Path) -> None:
    history(tmp_path, "trial-0001", [0.9, 0.95])  # has not come to the third epoch
    assert goes_on(history(tmp_path, "trial-0002", [0.1, 0.1, 0.1]), 3)
    assert not goes_on(tmp_path / "trial-0002", 1)


def test_only_rungs_are_looked_at_and_best_values_count(tmp_path: Path) -> None:
    history(tmp_path, "trial-0001", [0.5] * 30)
    worse = history(tmp_path, "trial-0002", [0.4] * 30)
    assert [epoch for epoch in range(1, 31) if not goes_on(worse, epoch)] == [1, 3, 9, 27]
    assert [epoch for epoch in range(1, 31) if not goes_on(worse, epoch, grace=2, reduction=2)] == [2, 4, 8, 16]
    up_and_down = history(tmp_path, "trial-0003", [0.6, 0.1, 0.1])
    assert goes_on(up_and_down, 3)


def test_what_it_came_to_is_said(tmp_path: Path) -> None:
    history(tmp_path, "trial-0001", [0.5])
    worse = history(tmp_path, "trial-0002", [0.4])
    with pytest.raises(FellBehindError, match=r"after epoch 1: its best val_loss was 0\.6000, .* had 0\.5000"):
        Halving(worse, AshaTable(), "val_loss").on_epoch_end(0)


def test_a_damaged_history_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "trial-0001").mkdir()
    (tmp_path / "trial-0001" / "history.csv").write_text("epoch,val_accuracy\n1,much\n")
    assert goes_on(history(tmp_path, "trial-0002", [0.4]), 1)
