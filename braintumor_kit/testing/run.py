"""Runs the checks of a plugin's contract and says of each how it ended."""

import inspect
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from braintumor_kit.registry import Registry
from braintumor_kit.testing import backbones, every_plugin, explainers, sources
from braintumor_kit.testing.check import BrokenPromiseError, Check
from braintumor_kit.testing.state import kept_settings
from braintumor_kit.testing.subject import SUBJECTS, Subject

CHECKS: dict[str, tuple[Check, ...]] = {
    "source": every_plugin.CHECKS + sources.CHECKS,
    "backbone": every_plugin.CHECKS + backbones.CHECKS,
    "explainer": every_plugin.CHECKS + explainers.CHECKS,
}
"""The checks of each kind, in the order in which they run."""

Ending = Literal["kept", "broken", "broken as said", "waived", "not run"]


@dataclass(frozen=True)
class Outcome:
    """How one check ended.

    Attributes:
        check: which.
        ending: "kept"; "broken"; "broken as said", where the plugin names it among its known failures; "waived", where
            the plugin declares a property untrue, with a reason, or says that a promise that this one needs is broken;
            "not run", where a promise that it needs is broken.
        saw: what was seen, or the reason; empty where the promise is kept.
    """

    check: Check
    ending: Ending
    saw: str = ""

    @property
    def ran(self) -> bool:
        """Whether the check was carried out."""
        return self.ending not in ("waived", "not run")

    @property
    def good(self) -> bool:
        """Whether it ended as it should: kept, waived, or broken as the plugin said."""
        return self.ending in ("kept", "broken as said", "waived")

    @property
    def told(self) -> str:
        """In words: what the contract wants, what was seen, and where the contract says so."""
        if self.ending == "kept":
            return f"{self.check.name}: kept"
        if self.ending != "broken":
            return f"{self.check.name}: {self.ending}: {self.saw}"
        return (
            f"{self.check.name}: broken\n"
            f"  the contract wants: {self.check.wants}\n"
            f"  the check saw:      {self.saw}\n"
            f"  the contract:       {self.check.line}"
        )


@dataclass(frozen=True)
class Result:
    """How all checks of a plugin ended."""

    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Whether every check was kept, waived, or broken as said."""
        return all(outcome.good for outcome in self.outcomes)

    @property
    def ran(self) -> int:
        """How many checks ran."""
        return sum(outcome.ran for outcome in self.outcomes)

    @property
    def told(self) -> str:
        """How many checks ran, and what became of the others."""
        others = [f"{outcome.check.name} {outcome.ending}" for outcome in self.outcomes if not outcome.ran]
        return f"ran {self.ran} of {len(self.outcomes)} checks" + (f" ({', '.join(others)})" if others else "")


class Examination:
    """A plugin under its checks, each of which runs once.

    Args:
        known_failures: promises that it does not keep, and why, beside those that the plugin names itself.

    Raises:
        PluginError: where there is no such plugin, or there are two.
    """

    def __init__(self, registry: Registry, kind: str, name: str, known_failures: dict[str, str] | None = None) -> None:
        self.subject: Subject = SUBJECTS[kind](registry, kind, name)
        self.checks = CHECKS[kind]
        self._extra = known_failures or {}
        self._outcomes: dict[str, Outcome] = {}

    @cached_property
    def _known_failures(self) -> dict[str, str]:
        return {**self.subject.plugin.known_failures, **self._extra}

    def outcome(self, name: str) -> Outcome:
        """How the check of that name ended."""
        if name not in self._outcomes:
            check = next(check for check in self.checks if check.name == name)
            self._outcomes[name] = self._run(check)
        return self._outcomes[name]

    def outcomes(self) -> Iterator[Outcome]:
        """How each check ended, in order, as they end."""
        for check in self.checks:
            yield self.outcome(check.name)

    def _run(self, check: Check) -> Outcome:
        for need in check.needs:
            ending = self.outcome(need).ending
            if ending in ("broken as said", "waived"):
                return Outcome(check, "waived", f"it needs {need}, which is {ending}")
            if ending != "kept":
                return Outcome(check, "not run", f"it needs {need}, which is {ending}")
        can_ask = bool(check.needs)  # of a plugin that does not load nothing can be asked
        reason = self.subject.plugin.reasons.get(check.waived_by or "", "") if can_ask else ""
        if check.waived_by and reason.strip() and not getattr(self.subject.plugin, check.waived_by):
            return Outcome(check, "waived", f"{check.waived_by} = False: {reason}")
        said = self._known_failures.get(check.name, "") if can_ask else ""
        saw = _broken_by(check, self.subject)
        if saw is None:
            return Outcome(check, "kept") if not said else Outcome(check, "broken", _needless(check, said))
        return Outcome(check, "broken as said", f"{said} ({saw})") if said else Outcome(check, "broken", saw)


def _needless(check: Check, said: str) -> str:
    return f"known_failures says of {check.name} '{said}', and the promise is kept: take it out"


def _broken_by(check: Check, subject: Subject) -> str | None:
    """What the check saw where the promise is broken, else None."""
    try:
        with kept_settings():
            check.hold(subject)
    except BrokenPromiseError as error:
        return str(error)
    # The plugin is someone else's code: whatever it raises is what the check saw, and exits are not obeyed.
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((f for f in reversed(frames) if f.filename == _file_of(subject)), frames[-1])
        return f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})"
    return None


def _file_of(subject: Subject) -> str:
    try:
        return inspect.getfile(subject.plugin)
    except (TypeError, OSError):
        return ""


def check_plugin(registry: Registry, kind: str, name: str) -> Result:
    """Runs every check of a plugin's contract.

    Raises:
        PluginError: where there is no such plugin, or there are two.
    """
    return Result(tuple(Examination(registry, kind, name).outcomes()))
