"""What text a recipe may be: small, shallow, of short words. It is checked before and after TOML is parsed, so that a
file made to stall or to fill memory is refused at once."""

import re
from typing import Any

from braintumor_kit.contracts import InputError

MAX_BYTES = 1 << 20
"""A recipe is a page of text; anything larger is a mistake or an attack."""

MAX_DEPTH = 32
"""Tables in tables, and parts of a dotted key."""

MAX_TEXT = 4096
"""Letters of a value or key: the longest path that Linux takes."""

MAX_BITS = 64
"""Of a whole number: JSON, and what recipes set, hold no more."""

MAX_VALUES = 5000
"""Values and tables together; the recipes that come with btkit have some fifty."""

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_PART}){{{MAX_DEPTH},}}")
"""The time that a TOML parser takes for a dotted key grows with the square of its parts."""


def check_text(text: str, place: str) -> None:
    """Refuses text that would take a parser long.

    Args:
        place: the file, or the option of the command line, that it comes from.

    Raises:
        InputError: with the line.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{place}: is larger than {MAX_BYTES >> 20} MiB; that is no recipe.")
    found = _LONG_KEY.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise InputError(f"{place}: line {line}: a key has more than {MAX_DEPTH} parts; that is no recipe.")


def check_values(values: Any, place: str) -> None:
    """Refuses values that no recipe has. Not by recursion: their depth is the file's to choose.

    Raises:
        InputError: with what is too much.
    """
    waiting: list[tuple[Any, int]] = [(values, 0)]
    count = 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise InputError(f"{place}: tables are nested more than {MAX_DEPTH} deep; that is no recipe.")
        if count > MAX_VALUES:
            raise InputError(f"{place}: has more than {MAX_VALUES:,} values; that is no recipe.")
        if isinstance(value, dict):
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise InputError(f"{place}: has a whole number of more than {MAX_BITS} bits; that is no recipe.")
        texts = value if isinstance(value, dict) else [value]
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise InputError(f"{place}: has a text with a NUL in it; remove it.")
        long = next((text for text in texts if isinstance(text, str) and len(text) > MAX_TEXT), None)
        if long is not None:
            raise InputError(
                f"{place}: the text {long[:20]!r}... has {len(long):,} letters, more than {MAX_TEXT:,}; shorten it."
            )
