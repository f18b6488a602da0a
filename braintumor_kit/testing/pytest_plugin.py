"""Options of pytest for contract checks, and the count of those that ran.

Every pytest session on a machine with btkit loads this module: it imports nothing but pytest, looks for no plugin, and
does nothing where no contract check is collected.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

_Key = tuple[str, str]
_DESELECTED = "deselected"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("btkit", "contract checks of btkit's plugins")
    group.addoption(
        "--btkit-plugin",
        action="append",
        default=[],
        metavar="KIND:NAME",
        help="with --pyargs braintumor_kit.testing: the plugin to check, such as explainer:gradcam; may be repeated",
    )
    group.addoption(
        "--btkit-plugins-folder",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of plugins, <kind>s/<name>.py inside; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Count(), "btkit-contract-count")


class _Count:
    """How many checks of each plugin ran, and why the others did not: none may vanish without a word."""

    def __init__(self) -> None:
        self.wanted: dict[_Key, int] = {}
        self.checks: dict[str, tuple[_Key, str]] = {}
        self.ran: dict[_Key, set[str]] = {}
        self.reasons: dict[_Key, dict[str, str]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_itemcollected(self, item: pytest.Item) -> None:
        for value in _parameters(item):
            contract = getattr(value, "btkit_contract", None)
            if contract is not None:
                kind, name, check, count = contract
                self.wanted[kind, name] = count
                self.checks[item.nodeid] = ((kind, name), check)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            self._note(item.nodeid, _DESELECTED)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid not in self.checks:
            return
        key, check = self.checks[report.nodeid]
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "skipped"
            self._note(report.nodeid, reason.removeprefix("Skipped: "))
        elif report.when == "call" or report.failed:
            self.ran.setdefault(key, set()).add(check)

    def _note(self, nodeid: str, reason: str) -> None:
        if nodeid in self.checks:
            key, check = self.checks[nodeid]
            self.reasons.setdefault(key, {})[check] = reason

    def missing(self) -> dict[_Key, int]:
        """Of each plugin, how many checks neither ran nor have a reason why not."""
        return {
            key: count - len(self.ran.get(key, set()) | self.reasons.get(key, {}).keys())
            for key, count in self.wanted.items()
        }

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        whole = not session.config.option.collectonly
        if whole and session.exitstatus == pytest.ExitCode.OK and any(self.missing().values()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        if not self.wanted or config.option.collectonly:
            return
        terminalreporter.section("contract checks")
        missing = self.missing()
        for key, count in self.wanted.items():
            reasons = self.reasons.get(key, {})
            line = f"{key[0]} '{key[1]}': ran {len(self.ran.get(key, ()))} of {count} checks"
            terminalreporter.write_line(line + _told(reasons, missing[key]))


def _parameters(item: pytest.Item) -> Iterable[object]:
    callspec = getattr(item, "callspec", None)
    return callspec.params.values() if callspec is not None else ()


def _told(reasons: dict[str, str], missing: int) -> str:
    """Why checks did not run, a line each."""
    lines = [f"  {check}: {reason}" for check, reason in reasons.items() if reason != _DESELECTED]
    if deselected := sum(reason == _DESELECTED for reason in reasons.values()):
        lines.append(f"  {deselected} {_DESELECTED}")
    if missing:
        lines.append(f"  {missing} did not run, and nothing says why: this fails")
    return "".join(f"\n{line}" for line in lines)
