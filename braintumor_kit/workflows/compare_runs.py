"""`btkit report A B`: several runs beside each other on one page."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from braintumor_kit.contracts import InputError
from braintumor_kit.files import write_text
from braintumor_kit.report.comparison import comparison_page
from braintumor_kit.runs import Run
from braintumor_kit.workflows.recorded import against
from braintumor_kit.workflows.report import damage_told, told_by


def write_comparison(runs: Sequence[Run], place: Path) -> Path:
    """Writes a page of several runs beside each other, the others held against the first.

    Raises:
        InputError, WorkError: as `write_report`.
    """
    told = []
    for run in runs:
        with damage_told(run):
            told.append(told_by(run))
    names = [one.name for one in told]
    if len(set(names)) < len(names):  # folds of several cross-validations, say
        told = [replace(one, name=str(run.folder.resolve())) for one, run in zip(told, runs, strict=True)]
    with damage_told(runs[0]):
        page = comparison_page(told, [_paired(runs[0], other) for other in runs[1:]])
        page.encode()
    write_text(place, page)
    return place


def _paired(first: Run, other: Run) -> Mapping[str, Any] | str:
    try:
        return against(first, other)
    except InputError as error:
        return str(error)
