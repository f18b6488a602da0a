"""One check of one promise, and where in the contract the promise stands."""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any


class BrokenPromiseError(AssertionError):
    """A plugin does not keep a promise; the message says what the check saw."""


def expect(kept: object, saw: str) -> None:
    """Raises BrokenPromiseError, saying what was seen, unless the promise is kept."""
    if not kept:
        raise BrokenPromiseError(saw)


@dataclass(frozen=True)
class Check:
    """A check of one promise.

    Attributes:
        name: the promise's.
        contract: the module that states it.
        hold: takes the plugin that is checked, a `Subject` of its kind; raises where it does not keep the promise.
        needs: promises without which this one cannot be looked at.
    """

    name: str
    contract: ModuleType
    hold: Callable[[Any], None]
    needs: tuple[str, ...] = ()

    @property
    def wants(self) -> str:
        """What the contract says."""
        promises: Mapping[str, str] = self.contract.PROMISES
        return promises[self.name]

    @cached_property
    def line(self) -> str:
        """File and line of the contract that say it."""
        file = str(self.contract.__file__)
        for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value == self.name:
                return f"{file}, line {node.lineno}"
        raise LookupError(f"{file} does not state '{self.name}'")

    @property
    def waived_by(self) -> str | None:
        """The property of the plugin that waives it, where it is declared untrue with a reason."""
        waivers: Mapping[str, str] = getattr(self.contract, "WAIVED_BY", {})
        return waivers.get(self.name)


def holds_to(contract: ModuleType, *needs: str) -> Callable[[Callable[[Any], None]], Check]:
    """Makes a function the check of the promise of its name."""

    def make(hold: Callable[[Any], None]) -> Check:
        return Check(hold.__name__, contract, hold, needs)

    return make


def in_order(contract: ModuleType, names: Mapping[str, Any]) -> tuple[Check, ...]:
    """The checks among a module's names, in the order in which the contract states their promises."""
    checks = {name: value for name, value in names.items() if isinstance(value, Check)}
    if checks.keys() != contract.PROMISES.keys():
        raise LookupError(f"promises and checks differ: {sorted(checks.keys() ^ contract.PROMISES.keys())}")
    return tuple(checks[name] for name in contract.PROMISES)
