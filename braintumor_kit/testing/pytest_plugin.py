"""Options of pytest for contract checks, and the count of those that ran.

Every pytest session on a machine with btkit loads this module: it imports nothing but pytest, looks for no plugin, and
does nothing where no contract check is collected. With pytest-xdist, workers tell the session that counts.
"""

from collections.abc import Generator, Sequence
from typing import Any

import pytest

_PROPERTY = "btkit_contract"
_DESELECTED = "deselected"
_Key = tuple[str, str]


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
    config.pluginmanager.register(_Count(config), "btkit-contract-count")


class _Count:
    """How many checks of each plugin ran, and why the others did not: none may vanish without a word."""

    def __init__(self, config: pytest.Config) -> None:
        self.worker: dict[str, Any] | None = getattr(config, "workeroutput", None)
        self.wanted: dict[_Key, int] = {}
        self.ran: dict[_Key, set[str]] = {}
        self.reasons: dict[_Key, dict[str, str]] = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        for case in _cases(item):
            self._expect(*case.btkit_contract)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            for case in _cases(item):
                kind, name, check, count = case.btkit_contract
                self._expect(kind, name, check, count)
                self.reasons[kind, name][check] = _DESELECTED

    def _expect(self, kind: str, name: str, check: str, count: int) -> None:
        self.wanted[kind, name] = count
        self.ran.setdefault((kind, name), set())
        self.reasons.setdefault((kind, name), {})

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """Says in the report which check it is of, and whether the test has called it."""
        report: Any = yield
        for case in _cases(item):
            report.user_properties.append((_PROPERTY, [list(case.btkit_contract), case.btkit_called]))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == _PROPERTY:
                self._note(report, *_as_case(value))

    def _note(self, report: pytest.TestReport, contract: tuple[str, str, str, int], called: bool) -> None:
        kind, name, check, count = contract
        self._expect(kind, name, check, count)
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "skipped"
            self.reasons[kind, name][check] = reason.removeprefix("Skipped: ")
        elif report.failed or (report.when == "call" and called):
            self.ran[kind, name].add(check)

    def missing(self) -> dict[_Key, int]:
        """Of each plugin, how many checks neither ran nor have a reason why not."""
        return {key: count - len(self.ran[key] | self.reasons[key].keys()) for key, count in self.wanted.items()}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """What a worker of pytest-xdist collected, which this session did not."""
        for kind, name, check, count in getattr(node, "workeroutput", {}).get(_PROPERTY, []):
            self._expect(kind, name, check, count)
            self.reasons[kind, name][check] = _DESELECTED

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.worker is not None:
            self.worker[_PROPERTY] = [
                [*key, check, self.wanted[key]]
                for key, reasons in self.reasons.items()
                for check, reason in reasons.items()
                if reason == _DESELECTED
            ]
            return
        whole = not session.config.option.collectonly
        if whole and session.exitstatus == pytest.ExitCode.OK and any(self.missing().values()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        if not self.wanted or config.option.collectonly:
            return
        terminalreporter.section("contract checks")
        missing = self.missing()
        for key, count in self.wanted.items():
            line = f"{key[0]} '{key[1]}': ran {len(self.ran[key])} of {count} checks"
            terminalreporter.write_line(line + _told(self.reasons[key], missing[key]))


def _as_case(value: Any) -> tuple[tuple[str, str, str, int], bool]:
    """As `pytest_runtest_makereport` put it; from a worker it comes as lists."""
    contract, called = value
    return tuple(contract), bool(called)


def _cases(item: pytest.Item) -> list[Any]:
    """The checks among a test's parameters; told by their attributes, so that nothing has to be imported."""
    callspec = getattr(item, "callspec", None)
    parameters = callspec.params.values() if callspec is not None else ()
    return [value for value in parameters if hasattr(value, _PROPERTY)]


def _told(reasons: dict[str, str], missing: int) -> str:
    """Why checks did not run, a line each."""
    lines = [f"  {check}: {reason}" for check, reason in reasons.items() if reason != _DESELECTED]
    if deselected := sum(reason == _DESELECTED for reason in reasons.values()):
        lines.append(f"  {deselected} {_DESELECTED}")
    if missing:
        lines.append(f"  {missing} did not run, and nothing says why: this fails")
    return "".join(f"\n{line}" for line in lines)
