"""Plugins with one fault each, of the kind that authors make: one check rejects each of them, and no other does."""

import ast
from pathlib import Path

import pytest

from braintumor_kit.contracts import backbones, explainers, plugin, sources
from braintumor_kit.registry import Registry
from braintumor_kit.testing.run import Examination

pytestmark = pytest.mark.usefixtures("one_thread", "warm_checks")

FOLDER = Path(__file__).with_name("wrong_plugins")
FILES = {f"{path.parent.name}/{path.stem}": path for path in sorted(FOLDER.glob("*/*.py"))}
PROMISES = {"sources": sources.PROMISES, "backbones": backbones.PROMISES, "explainers": explainers.PROMISES}

UNBREAKABLE = {
    "listed_unimported": "a file whose name is not of the form is not listed; entry points: tests/test_contracts.py",
}
"""Promises that no wrong plugin breaks, and why."""


def broken_by(path: Path) -> str:
    """The promise that a wrong plugin says it breaks; it is not imported."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BREAKS":
            return str(ast.literal_eval(node.value))
    raise LookupError(f"{path} does not say BREAKS = ...")


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_rejected_by_one_check(path: Path) -> None:
    kind, promise = path.parent.name.removesuffix("s"), broken_by(path)
    outcomes = list(Examination(Registry((FOLDER,)), kind, path.stem).outcomes())
    needs = {outcome.check.name: outcome.check.needs for outcome in outcomes}

    def stands_on_it(name: str) -> bool:
        return any(need == promise or stands_on_it(need) for need in needs[name])

    others = [outcome.told for outcome in outcomes if outcome.check.name != promise and outcome.ending == "broken"]
    assert not others
    assert [outcome.check.name for outcome in outcomes if outcome.ending == "broken"] == [promise]
    for outcome in outcomes:
        name, ending = outcome.check.name, outcome.ending
        assert name == promise or ending in ("kept", "waived") or (ending == "not run" and stands_on_it(name))


@pytest.mark.parametrize("kind", [*PROMISES, "every kind"])
def test_every_promise_is_broken_by_one(kind: str) -> None:
    promises = PROMISES.get(kind, plugin.PROMISES)
    broken = {broken_by(path) for path in FILES.values() if kind in (path.parent.name, "every kind")}
    assert promises.keys() - UNBREAKABLE.keys() <= broken
    assert not UNBREAKABLE.keys() & broken


def test_the_list_names_promises() -> None:
    assert UNBREAKABLE.keys() <= set().union(plugin.PROMISES, *PROMISES.values())
