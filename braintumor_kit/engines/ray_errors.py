"""What Ray's errors mean, in fewer words."""

import re

from braintumor_kit.errors import InputError


def lacking(error: Exception) -> InputError | None:
    """Where a machine could not even import the work: what it lacks; else None."""
    missing = re.search(r"No module named '[\w.]+'|cannot import name '\w+'", str(error))
    if missing is None:
        return None
    return InputError(
        f"a machine of the Ray cluster lacks what this one has ({missing[0]}): install the same btkit and plugins "
        "everywhere."
    )


def cause(error: Exception) -> str:
    """Why a process was lost, in Ray's own words: the first line that says anything."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next(
        (line for line in lines if "reason" in line.lower() or "died" in line.lower()),
        lines[0] if lines else type(error).__name__,
    )
