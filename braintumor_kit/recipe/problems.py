"""Faults of a recipe, collected and shown together, each with file, table, key and the nearest valid spelling."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from braintumor_kit.contracts import InputError
from braintumor_kit.spelling import nearest

Path_ = tuple[str | int, ...]
"""Where a value stands: ("training", "phases", 0, "epochs")."""

SHOWN = 50
"""Problems that a message lists; what has more is no recipe with mistakes but something else."""


@dataclass(frozen=True)
class Problem:
    """One fault.

    Attributes:
        file: the file that holds the faulty value, or "--set".
        path: table and key, outermost first.
        message: what was expected, what was found, what to do.
    """

    file: str
    path: Path_
    message: str

    def __str__(self) -> str:
        *table, key = self.path or ("recipe",)
        place = f"[{dotted(table)}] {key}" if table else str(key)
        return f"{self.file}: {place}: {self.message}"


class RecipeError(InputError):
    """A recipe with one or more faults; the message lists the first of them, a line each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
        lines = [f"  {problem}" for problem in problems[:SHOWN]]
        rest = [f"  and {len(problems) - SHOWN:,} more"] if len(problems) > SHOWN else []
        super().__init__("\n".join([f"the recipe has {count}:", *lines, *rest]))


def dotted(path: Iterable[str | int]) -> str:
    """("training", "phases", 0) as "training.phases.0"."""
    return ".".join(str(part) for part in path)


def _hint(word: object, known: Iterable[str]) -> str:
    """ " did you mean 'x'?" for the known word nearest to `word`, or nothing."""
    near = nearest(word, known)
    return f" did you mean '{near}'?" if near else ""


def explain(error: Mapping[str, Any], known: Iterable[str]) -> str:
    """One of pydantic's errors as a sentence for the user; `known` are the keys of the table it stands in."""
    match error["type"]:
        case "extra_forbidden":
            known = sorted(known)
            listed = f" known: {', '.join(known)}." if known else " there are none to set."
            return f"unknown key;{_hint(error['loc'][-1], known) or listed}"
        case "missing":
            return "is missing and has no default."
        case "literal_error":
            expected = error["ctx"]["expected"]
            return f"must be {expected}, not {_short(error['input'])};{_near_literal(error['input'], expected)}"
        case "value_error" if isinstance(error["input"], Mapping):  # of a whole table, which would be long to show
            return f"{_lower(error['msg'])}."
        case _:
            return f"{_lower(error['msg'])}, not {_short(error['input'])}."


def _near_literal(value: object, expected: str) -> str:
    hint = _hint(value, expected.replace(" or ", ", ").replace("'", "").split(", "))
    return hint or " choose one of them."


def _lower(message: str) -> str:
    message = message.removeprefix("Input ").removeprefix("Value error, ").rstrip(".")
    return message[:1].lower() + message[1:]


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
