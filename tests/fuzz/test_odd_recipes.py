"""Twenty thousand recipes with mistakes, two thousand in CI: each is valid, and then means the same when what is in
force is written out and read again; or it is refused with one message."""

import json
import resource
import time
from pathlib import Path

import hypothesis
import pytest
import tomli_w
from hypothesis import HealthCheck, given, seed, settings
from judged import command, refused
from odd_recipes import texts
from watched import MEGABYTES, SECONDS

from braintumor_kit.errors import InputError
from braintumor_kit.recipe.load import load_recipe, without_none
from braintumor_kit.registry import Registry

FAST = settings(
    max_examples=2000,
    deadline=None,  # the time of each is looked at here
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def registry() -> Registry:
    """One for all, so that plugins are looked for once."""
    known = Registry()
    known.load("explainer", "gradcam")
    return known


def hold(content: bytes, folder: Path, registry: Registry) -> str:
    path = folder / "recipe.toml"
    path.write_bytes(content)
    idle, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        recipe = load_recipe(path, (), registry)
    except InputError as error:
        said = str(error)
        assert said
        assert len(said) < 20_000
        outcome = "refused"
    else:
        resolved = recipe.resolved()
        json.dumps(resolved, allow_nan=False)
        path.write_text(tomli_w.dumps(without_none(resolved)))
        assert load_recipe(path, (), registry).resolved() == resolved
        outcome = "accepted"
    hypothesis.event(outcome)
    assert time.monotonic() - begun < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024 < MEGABYTES
    return outcome


@FAST
@given(content=texts())
def test_recipes(content: bytes, tmp_path: Path, registry: Registry) -> None:
    hold(content, tmp_path, registry)


@settings(FAST, max_examples=100)
@given(content=texts())
def test_recipes_on_the_command_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    if not refused(command("recipe", "check", path)):
        shown = command("recipe", "show", path, "--json")
        assert not refused(shown)
        json.loads(shown.out)


@pytest.mark.long
@settings(FAST, max_examples=20_000, derandomize=False)
@seed(8)
@given(content=texts())
def test_twenty_thousand_recipes(content: bytes, tmp_path: Path, registry: Registry) -> None:
    hold(content, tmp_path, registry)
