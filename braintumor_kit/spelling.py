"""What the user probably meant."""

import difflib
from collections.abc import Iterable


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known word that is spelt most like `word`, or None where none is much like it."""
    return next(iter(difflib.get_close_matches(str(word), list(known), n=1)), None)
