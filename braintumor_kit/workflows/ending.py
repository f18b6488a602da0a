"""How a run ends: recorded in any case, and told how to go on where it did not finish."""

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from braintumor_kit.contracts import InputError, WorkError
from braintumor_kit.files import reason_of
from braintumor_kit.interrupts import interrupted
from braintumor_kit.progress import Reporter, log
from braintumor_kit.runs import Run, end_record, try_to_end_record
from braintumor_kit.sweep.halving import FellBehindError
from braintumor_kit.training.fit import has_checkpoint


@contextmanager
def ending_recorded(run: Run) -> Iterator[None]:
    """Writes into `record.json` at the end how it went. A trial of a sweep that fell behind ends here, stopped."""
    try:
        yield
    except FellBehindError as stop:
        log.info(str(stop), extra={"event": "stopped"})
        end_record(run, "stopped", reason=str(stop))
        return
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) or interrupted() else "failed"
        try_to_end_record(run, status, f"{type(error).__name__}: {error}")
        log.error(status, extra={"event": status}, exc_info=isinstance(error, Exception))
        raise
    end_record(run, "finished")


@contextmanager
def told_how_to_go_on(run: Run, folds: bool, reporter: Reporter, resumed: bool = False) -> Iterator[None]:
    """Tells the user what is kept of a run that stops before its end; nothing is, where it had not begun.

    Args:
        folds: whether it is a cross-validation, which goes on from its finished folds where no training had begun.
        resumed: whether it had begun before.

    Raises:
        WorkError: where the run's folder is gone, or the system refused something and nobody said so.
    """
    try:
        yield
    except BaseException as error:
        if not run.folder.is_dir():
            if isinstance(error, KeyboardInterrupt):
                raise
            raise WorkError(f"the run folder '{run.folder}' is gone: it was removed or moved meanwhile.") from error
        _tell(run, folds, reporter, resumed, isinstance(error, InputError))
        if isinstance(error, OSError):
            what = f"'{error.filename}': " if error.filename else ""
            raise WorkError(f"{what}{reason_of(error)}. Files written before are whole.") from error
        raise


def _tell(run: Run, folds: bool, reporter: Reporter, resumed: bool, fault: bool) -> None:
    """Says what is kept.

    Args:
        fault: whether the input was at fault, whose message says itself what to do.
    """
    goes_on = f"btkit run --resume {shlex.quote(str(run.folder))}"
    if not resumed and not _begun(run.folder):
        shutil.rmtree(run.folder, ignore_errors=True)
        reporter.say("the run had not begun, and nothing is left of it")
    elif resumed and fault:
        return
    elif folds:
        reporter.say("finished folds are kept, and of the others what was done by their last checkpoints")
        reporter.say(f"go on where it stopped with: {goes_on}")
    elif has_checkpoint(run.folder):
        reporter.say(f"go on where it stopped with: {goes_on}")
    else:
        reporter.say(f"its training had not begun; begin it in the same folder with: {goes_on} --accept-changes")


def _begun(folder: Path) -> bool:
    """Whether there is anything of a run that would be a loss."""
    return has_checkpoint(folder) or any(
        (folder / name).exists() for name in ("record.json", "history.csv", "model.keras", "fold-1")
    )
