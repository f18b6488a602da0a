"""The checks of a plugin's contract in a test suite of the plugin's own.

@parametrize_contract("explainers", "mine")
def test_contract(check):
    check()
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from braintumor_kit.registry import CONTRACTS, Registry
from braintumor_kit.testing.run import CHECKS, Examination

_QUIET = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""Keras' own conversions from torch to NumPy, which no author of a plugin can mend."""


@dataclass(frozen=True)
class Case:
    """One check of one plugin, to be called by a test.

    Attributes:
        btkit_contract: (kind, name, check, of how many), by which btkit's pytest plugin counts what ran.
        btkit_called: whether a test has called it.
    """

    kind: str
    name: str
    check: str
    folders: tuple[Path, ...] = ()
    known_failures: tuple[tuple[str, str], ...] = ()
    btkit_contract: tuple[str, str, str, int] = field(init=False)
    btkit_called: bool = field(init=False, default=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "btkit_contract", (self.kind, self.name, self.check, len(CHECKS[self.kind])))

    def __call__(self) -> None:
        """Fails with what the contract wants and what was seen; skips what is waived, with the reason."""
        __tracebackhide__ = True
        object.__setattr__(self, "btkit_called", True)
        outcome = _examination(self.kind, self.name, self.folders, self.known_failures).outcome(self.check)
        if outcome.ending in ("broken", "not run"):
            pytest.fail(outcome.told, pytrace=False)
        if outcome.ending == "broken as said":
            pytest.xfail(outcome.saw)
        if outcome.ending == "waived":
            pytest.skip(f"{outcome.ending}: {outcome.saw}")


@cache
def _examination(
    kind: str, name: str, folders: tuple[Path, ...], known_failures: tuple[tuple[str, str], ...]
) -> Examination:
    return Examination(Registry.from_environment(folders), kind, name, dict(known_failures))


def cases(
    kind: str, name: str, plugins: Sequence[Path] = (), known_failures: Mapping[str, str] | None = None
) -> list[Any]:
    """One parameter a check, with the check's name as its id; nothing of the plugin is imported.

    Raises:
        ValueError: where there is no such kind or, among the known failures, no such promise.
    """
    kind = kind.removesuffix("s")
    if kind not in CONTRACTS:
        raise ValueError(f"a kind of plugin is one of {', '.join(CONTRACTS)}, not {kind!r}")
    names = [check.name for check in CHECKS[kind]]
    if strangers := set(known_failures or ()) - set(names):
        raise ValueError(f"the contract of {kind}s makes no promise {', '.join(sorted(strangers))}")
    folders = tuple(Path(folder).resolve() for folder in plugins)
    known = tuple(sorted((known_failures or {}).items()))
    return [
        pytest.param(Case(kind, name, check, folders, known), id=f"{kind}:{name}:{check}", marks=_QUIET)
        for check in names
    ]


def parametrize_contract(
    kind: str, name: str, *, plugins: Sequence[Path] = (), known_failures: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Runs a test once for each check of a plugin's contract; the test takes `check` and calls it.

    Args:
        kind: "source", "backbone" or "explainer", or its plural.
        name: of the plugin.
        plugins: folders of plugins, `<kind>s/<name>.py` inside; none is needed for installed ones.
        known_failures: promises that the plugin does not keep, and why: these checks have to fail.
    """
    return pytest.mark.parametrize("check", cases(kind, name, plugins, known_failures))
