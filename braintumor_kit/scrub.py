"""Texts that may be sent to strangers: of their words only those that stand in btkit's own code are kept.

What a name, a path or an id looks like cannot be told by its form. What a word of btkit's own looks like can: its code
is public, and so is that of the packages that a traceback leads through. So nothing is looked for that has to go; what
is known to be harmless stays, and all else is left out.
"""

import builtins
import errno
import os
import re
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

OUT = "…"
"""What stands in the place of what is left out."""

PIECE = re.compile(r"\w+|\W")
LETTERS = re.compile(r"[^\W\d_]+")
TOKEN = re.compile(
    r"(?P<date>\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d{4})"
    r"|(?P<number>(?<!\w)\d+(?:\.\d+)*(?:e[+-]?\d+)?(?!\w))"
    r"|(?P<mixed>\w*\d\w*)"  # letters and digits, as in conv2d and in p0017
    r"|(?P<word>[^\W\d_]+)"
)
RUN_OF_OUTS = re.compile(rf"{OUT}(?:[\s/\\._-]*{OUT})+")
FRAME = re.compile(r'(?P<indent>\s*)File "(?P<file>[^"]*)", line (?P<line>\d+)(?:, in (?P<function>.*))?')
DIGITS = 5
"""A whole number of more is a birthday, or an id."""


class Scrubber:
    """Leaves out what is not known to be harmless.

    Args:
        names: ids of samples and of patients: where they are numbers, or names that are words of btkit's too, they are
            left out all the same.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        names = {name for name in names if name and name not in vocabulary()}
        self._numbers = {_plain(name) for name in names if name.isdigit()}
        self._names = {piece for name in names for piece in LETTERS.findall(name) if piece[0].isupper()}
        self._whole = {name for name in names if len(name) > 2 and not name.isdigit()}
        lengths: dict[str, set[int]] = defaultdict(set)
        for name in self._whole:
            lengths[PIECE.match(name)[0]].add(len(name))  # type: ignore[index]
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}

    def text(self, text: str) -> str:
        """A text, such as a message, with `…` for what is left out."""
        return self._text(text, vocabulary())

    def word(self, text: str) -> str:
        """A value that is one word or number, such as a setting: all of it, or `…`."""
        return text if self.text(text) == text else OUT

    def traceback(self, text: str) -> str:
        """A traceback: frames in public code with their lines, of others the number of the line, and the errors' names
        and messages."""
        public = {file: place for found in FRAME.finditer(text) if (place := _public(file := found["file"]))}
        words = vocabulary() | {word for file in public for word in _words_in(Path(file))}
        lines, shows_code = [], False
        for line in text.splitlines():
            if frame := FRAME.fullmatch(line):
                place = public.get(frame["file"])
                function = f", in {self._text(frame['function'], words)}" if frame["function"] else ""
                lines.append(f'{frame["indent"]}File "{place or OUT}", line {frame["line"]}{function}')
                shows_code = place is not None
            else:
                shows_code = shows_code and line.startswith("    ")
                lines.append(line if shows_code else self._text(line, words))
        return "\n".join(lines)

    def value(self, value: Any) -> Any:
        """A JSON value with each of its texts, and keys, as `word`."""
        if isinstance(value, str):
            return self.word(value)
        if isinstance(value, Mapping):
            keys = [self.word(str(key)) for key in value]
            named = [f"{OUT}{place}" if key == OUT else key for place, key in enumerate(keys)]
            return {key: self.value(item) for key, item in zip(named, value.values(), strict=True)}
        return [self.value(item) for item in value] if isinstance(value, list | tuple) else value

    def _text(self, text: str, words: frozenset[str]) -> str:
        def kept(found: re.Match[str]) -> str:
            if word := found["word"]:
                return word if self._is_known(word, words) else OUT
            if found["mixed"]:
                return found[0] if found[0] in identifiers() else OUT
            return found[0] if found["number"] and self._is_harmless(found[0]) else OUT

        return RUN_OF_OUTS.sub(OUT, TOKEN.sub(kept, self._without_names(text)))

    def _without_names(self, text: str) -> str:
        """Looks at each piece of the text whether a name begins there: as fast for a million names as for one."""
        done, parts = 0, []
        for piece in PIECE.finditer(text):
            if piece.start() >= done and (end := self._name_at(text, piece.start(), piece[0])):
                parts += [text[done : piece.start()], OUT]
                done = end
        return "".join([*parts, text[done:]])

    def _name_at(self, text: str, start: int, piece: str) -> int | None:
        """Where the longest name ends that begins at a place; None where none does."""
        ends = (start + length for length in self._lengths.get(piece, ()))
        return next((end for end in ends if text[start:end] in self._whole), None)

    def _is_known(self, word: str, words: frozenset[str]) -> bool:
        return word not in self._names and (word in words or (word[0].isupper() and word.lower() in words))

    def _is_harmless(self, number: str) -> bool:
        parts = re.split(r"[.e]", number)
        if len(parts) == 1:
            return len(number) <= DIGITS and _plain(number) not in self._numbers
        return len(parts) == 2 or (len(parts) <= 4 and max(map(len, parts)) <= DIGITS)  # a decimal, or a version


def _plain(number: str) -> str:
    return number.lstrip("0") or "0"


def command_words(arguments: Sequence[str]) -> list[str]:
    """A command line without what it is about: the command, its options, and the keys that `--set` gives."""
    scrubber, said = Scrubber(), []
    for before, word in zip(("", *arguments), arguments, strict=False):
        option, _, value = word.partition("=")
        if before == "--set" and value:
            said.append(f"{scrubber.word(option)}={OUT}")
        elif word.startswith("--"):
            said.append(scrubber.word(option))
        else:
            said.append(scrubber.word(word) if before in ("", "btkit") else OUT)
    return said


@cache
def identifiers() -> frozenset[str]:
    """Every word of letters and digits in the code of btkit, such as float32."""
    texts = (_text_of(path) for folder in _own_folders() for path in folder.rglob("*.py"))
    return frozenset(word for text in texts for word in re.findall(r"\w*\d\w*", text))


@cache
def vocabulary() -> frozenset[str]:
    """Every word in the code of btkit, in the names of its files and recipes, and in the system's messages. Names of
    people, whom it cites, are not among them: a word that begins large is known where it is known small."""
    words = {word for folder in _own_folders() for path in folder.rglob("*") for word in _words_of(path)}
    words |= {word for number in errno.errorcode for word in LETTERS.findall(os.strerror(number))}
    words |= {word for name in dir(builtins) for word in LETTERS.findall(name)}
    return frozenset(filter(_is_no_name, words))


def _is_no_name(word: str) -> bool:
    return word[0].islower() or not word[1:].islower()


def _own_folders() -> list[Path]:
    package = Path(__file__).resolve().parent
    return [package, *(package.with_name(name) for name in ("plugins", "btkit_plugins", "recipes", "btkit_recipes"))]


def _words_of(path: Path) -> Iterator[str]:
    if path.suffix in (".py", ".toml"):
        yield from (*LETTERS.findall(path.stem), *_words_in(path))


def _words_in(path: Path) -> list[str]:
    return [word for word in LETTERS.findall(_text_of(path)) if _is_no_name(word)]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _public(file: str) -> str | None:
    """The place of code that anyone can have, from the folder on in which it is installed; None of other code."""
    path, package = Path(file), Path(__file__).resolve().parent
    roots = {package: "BTKIT", package.with_name("plugins"): "BTKIT/plugins"}
    for name, word in {"purelib": "SITE", "platlib": "SITE", "stdlib": "PYTHON", "platstdlib": "PYTHON"}.items():
        roots.setdefault(Path(sysconfig.get_path(name)).resolve(), word)
    if not path.is_absolute():
        return None
    path = path.resolve()
    root = next((root for root in roots if path.is_relative_to(root)), None)
    return f"{roots[root]}/{path.relative_to(root).as_posix()}" if root else None
