"""What a process tells that a plugin runs in: one JSON value behind a mark, as plugins may print what they like."""

import json
from collections.abc import Mapping
from typing import Any

MARK = "btkit-tells:"


def tell(value: Mapping[str, Any]) -> None:
    """Prints the value."""
    print(MARK + json.dumps(value))


def told(printed: str) -> dict[str, Any] | None:
    """The value in what a process printed; None where it ended before it told one."""
    _, marked, rest = printed.partition(MARK)
    if not marked:
        return None
    value: dict[str, Any] = json.loads(rest.splitlines()[0])  # the plugin may print more as the process ends
    return value
