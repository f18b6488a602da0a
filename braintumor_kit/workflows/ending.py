"""How a run ends: recorded in any case, and told how to go on where it did not finish."""

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from braintumor_kit.interrupts import interrupted
from braintumor_kit.progress import Reporter, log
from braintumor_kit.runs import Run, end_record, try_to_end_record
from braintumor_kit.training.fit import has_checkpoint


@contextmanager
def ending_recorded(run: Run) -> Iterator[None]:
    """Writes into `record.json` at the end how it went."""
    try:
        yield
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) or interrupted() else "failed"
        try_to_end_record(run, status, f"{type(error).__name__}: {error}")
        log.error(status, extra={"event": status}, exc_info=isinstance(error, Exception))
        raise
    end_record(run, "finished")


@contextmanager
def told_how_to_go_on(run: Run, folds: bool, reporter: Reporter) -> Iterator[None]:
    """Tells the user what is kept of a run that stops before its end; nothing is, where it had not begun.

    Args:
        folds: whether it is a cross-validation, which goes on from its finished folds where no training had begun.
    """
    try:
        yield
    except BaseException:
        goes_on = f"btkit run --resume {shlex.quote(str(run.folder))}"
        if not (run.folder / "record.json").is_file():
            shutil.rmtree(run.folder, ignore_errors=True)
            reporter.say("the run had not begun, and nothing is left of it")
        elif folds:
            reporter.say("finished folds are kept, and of the others what was done by their last checkpoints")
            reporter.say(f"go on where it stopped with: {goes_on}")
        elif has_checkpoint(run.folder):
            reporter.say(f"go on where it stopped with: {goes_on}")
        else:
            reporter.say(f"its training had not begun; begin it in the same folder with: {goes_on} --accept-changes")
        raise
