"""Which values trials try: a grid in order, draws from a seed, a search that learns; and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from braintumor_kit.errors import InputError
from braintumor_kit.recipe.load import load_recipe
from braintumor_kit.recipe.problems import RecipeError
from braintumor_kit.recipe.sweep_table import SweepTable
from braintumor_kit.sweep.trials import Search, Trial, search_of

RECIPE = 'seed = 3\n[source]\nname = "phantom"\n[backbone]\nname = "resnet"\n'


def table(text: str, tmp_path: Path) -> SweepTable:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE + text)
    found = load_recipe(recipe).tables.sweep
    assert found is not None
    return found


def values(trials: list[Trial]) -> list[dict[str, Any]]:
    return [{key: json.loads(value) for key, value in trial.values} for trial in trials]


def test_a_grid_has_every_combination_in_order(tmp_path: Path) -> None:
    space = 'training.learning_rate = {low = 1e-4, high = 1e-2, log = true, steps = 3}\n"backbone.depth" = [18, 34]\n'
    search = search_of(table(f"[sweep]\n[sweep.space]\n{space}", tmp_path), 0, "val_loss")
    trials = search.ask(4) + search.ask(100)
    assert [trial.number for trial in trials] == [1, 2, 3, 4, 5, 6]
    assert values(trials) == [
        {"training.learning_rate": rate, "backbone.depth": depth} for rate in (1e-4, 1e-3, 1e-2) for depth in (18, 34)
    ]
    assert trials[0].overrides == ["training.learning_rate=0.0001", "backbone.depth=18"]
    assert search.ask(1) == []


def test_whole_steps_are_whole_and_each_once(tmp_path: Path) -> None:
    text = '[sweep.space]\n"training.batch_size" = {low = 4, high = 6, whole = true, steps = 5}\n'
    trials = search_of(table(text, tmp_path), 0, "val_loss").ask(100)
    assert values(trials) == [{"training.batch_size": size} for size in (4, 5, 6)]  # of 4, 4.5, 5, 5.5, 6


DRAWN = """[sweep]
method = "random"
trials = 300
[sweep.space]
training.learning_rate = {low = 1e-4, high = 1e-2, log = true}
training.batch_size = {low = 4, high = 6, whole = true}
training.dropout = {low = 0.0, high = 0.5}
training.select = ["val_accuracy", "val_loss"]
"""


def test_draws_lie_in_their_ranges_evenly_on_their_scales(tmp_path: Path) -> None:
    drawn = values(search_of(table(DRAWN, tmp_path), 5, "val_loss").ask(300))
    rates = [math.log10(item["training.learning_rate"]) for item in drawn]
    assert -4 <= min(rates) < -3.9
    assert -2.1 < max(rates) <= -2
    assert abs(sum(rates) / 300 + 3) < 0.15  # four standard errors of an even spread over two decades
    sizes = [item["training.batch_size"] for item in drawn]
    assert all(70 < sizes.count(size) < 130 for size in (4, 5, 6))  # of 300 draws, 100 +- 8
    assert min(item["training.dropout"] for item in drawn) >= 0
    assert 120 < sum(item["training.select"] == "val_loss" for item in drawn) < 180


def test_draws_follow_from_the_seed_and_further_trials_change_none(tmp_path: Path) -> None:
    sweep = table(DRAWN, tmp_path)
    more = sweep.model_copy(update={"trials": 400})
    first = search_of(sweep, 5, "val_loss").ask(300)
    assert search_of(more, 5, "val_loss").ask(300) == first
    assert search_of(sweep, 6, "val_loss").ask(300) != first


def learned(search: Search, rounds: int) -> list[dict[str, Any]]:
    """Each trial is told how far its rate is from 1e-3, in decades."""
    asked = []
    while trials := search.ask(rounds):
        for trial, given in zip(trials, values(trials), strict=True):
            asked.append(given)
            search.tell(trial, abs(math.log10(given["training.learning_rate"]) + 3))
    return asked


def test_optuna_learns_and_the_same_answers_give_the_same_trials(tmp_path: Path) -> None:
    pytest.importorskip("ray.tune", reason="Ray is missing: pip install 'braintumor-kit[ray]'")
    text = (
        '[sweep]\nmethod = "optuna"\ntrials = 40\n[sweep.space]\n'
        "training.learning_rate = {low = 1e-5, high = 1e-1, log = true}\n"
        "training.batch_size = {low = 4, high = 64, whole = true}\n"
        'training.trainable = ["all", "head"]\n'
    )
    sweep = table(text, tmp_path)
    found = learned(search_of(sweep, 1, "val_loss"), 2)
    assert len(found) == 40
    assert {type(item["training.batch_size"]) for item in found} == {int}
    assert {item["training.trainable"] for item in found} == {"all", "head"}
    away = [abs(math.log10(item["training.learning_rate"]) + 3) for item in found]
    assert sum(away[-15:]) < 0.6 * sum(away[:15])
    assert learned(search_of(sweep, 1, "val_loss"), 2) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sweep]\n[sweep.space]\n", "space names no key"),
        ("[sweep.space]\na.b = []\n", "space.a.b lists no value"),
        ("[sweep.space]\ntraining.workers = [1, 2]\n", "space.training.workers is nothing that a trial could vary"),
        ("[sweep.space]\na.b = 3\n", "a.b: list its values, or give a range"),
        ("[sweep.space]\na.b = {low = 3, high = 1, steps = 2}\n", "low has to be less than high, not 3 and 1"),
        ("[sweep.space]\na.b = {low = 0, high = 1, steps = 2, log = true}\n", "more than 0 on a logarithmic scale"),
        ("[sweep.space]\na.b = {low = 0, high = 1}\n", 'space.a.b needs steps with method = "grid"'),
        (
            '[sweep]\nmethod = "random"\n[sweep.space]\na.b = {low = 0, high = 1, steps = 3}\n',
            "space.a.b does not go with steps",
        ),
        ("[sweep]\ntrials = 3\n[sweep.space]\na.b = [1]\n", "a grid has every combination"),
        ("[sweep.space]\nresources.cpus = [1, 2]\n", "space.resources.cpus is nothing that a trial could vary"),
        ("[sweep.space]\na.b = {low = 0, high = 1, stepps = 3}\n", "a.b"),
        ('[split]\nmethod = "kfold"\n[sweep.space]\na.b = [1]\n', "choose first, then cross-validate"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        table(text, tmp_path)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_grid_that_is_too_large_is_refused(tmp_path: Path) -> None:
    text = "".join(f"a.b{number} = [{', '.join(map(str, range(22)))}]\n" for number in range(3))
    with pytest.raises(InputError, match="has 10648 combinations, more than 10000"):
        search_of(table(f"[sweep.space]\n{text}", tmp_path), 0, "val_loss")


def test_optuna_without_the_extra_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from braintumor_kit.sweep import optuna_search

    monkeypatch.setattr(optuna_search.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs ray and optuna: pip install 'braintumor-kit\[ray\]'"):
        search_of(table('[sweep]\nmethod = "optuna"\n[sweep.space]\na.b = [1]\n', tmp_path), 0, "val_loss")
