"""Takes out of texts what tells of patients, samples, people or places, so that they may be sent to strangers."""

import getpass
import platform
import re
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

PIECE = re.compile(r"[\w-]+|.", re.DOTALL)
QUOTES = "'\"`"
ABSOLUTE = re.compile(
    r"""(?P<quote>['"])(?:~?/|[A-Za-z]:\\)(?:(?!(?P=quote)).)*(?P=quote)"""  # quoted: to the other quote
    r"""|(?<![\w/.<])(?!//)(?:~?/|[A-Za-z]:\\)[^\s'"`,;)\]}]+""",
    re.DOTALL,
)
REST = r"""[^\s'"`,;)\]}]*"""
PICTURE = re.compile(r"""[^\s'"`=(\[]+\.(?:png|jpe?g|bmp|gif|tiff?|webp|mat|dcm|nii(?:\.gz)?|zip)\b""", re.IGNORECASE)
KEPT = re.compile(r"(?:.*/)?(?:SITE|PYTHON|BTKIT|RUN|SAMPLE)\b")
EVERYBODY = {"root", "user", "admin", "ubuntu", "localhost"}


class Scrubber:
    """What it takes out stands as SAMPLE, PATH, FILE or NAME; RUN, BTKIT, SITE and PYTHON are folders below which all
    has known names.

    Args:
        names: ids of samples and of patients.
        places: folders and files that are nobody's business, such as the root of a data set; those that are not named
            here are known by their form alone.
        run: the folder of the run that texts are about.
    """

    def __init__(self, names: Iterable[str] = (), places: Iterable[str] = (), run: Path | None = None) -> None:
        self._names = {name for name in names if name}
        lengths: dict[str, set[int]] = defaultdict(set)
        for name in self._names:
            lengths[PIECE.match(name)[0]].add(len(name))  # type: ignore[index]
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}
        known = dict.fromkeys((*places, str(Path.cwd())), "PATH") | dict(_installed())
        if run is not None:
            known[str(run.resolve())] = "RUN"
        self._places = [
            (re.compile(re.escape(place) + r"(?![\w.-])" + (REST if word == "PATH" else "")), word)
            for place, word in sorted(known.items(), key=lambda item: -len(item[0]))
            if len(place) > 1
        ]
        self._run = None if run is None else _folder_anywhere(run.resolve().name)
        people = {name for name in (_user(), platform.node()) if len(name) > 2} - EVERYBODY
        self._people = [re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])") for name in people]

    def text(self, text: str) -> str:
        """A text without what it must not tell."""
        text = self._without_names(text)
        for pattern, word in self._places:
            text = pattern.sub(word, text)
        if self._run:
            text = self._run.sub("RUN", text)
        text = ABSOLUTE.sub(lambda found: f"{found['quote'] or ''}PATH{found['quote'] or ''}", text)
        text = PICTURE.sub(lambda found: found[0] if KEPT.match(found[0]) else "FILE", text)
        for pattern in self._people:
            text = pattern.sub("NAME", text)
        return text

    def value(self, value: Any) -> Any:
        """A JSON value with its texts scrubbed; keys stay, unless they are names."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self._without_names(str(key)): self.value(item) for key, item in value.items()}
        return [self.value(item) for item in value] if isinstance(value, list | tuple) else value

    def _without_names(self, text: str) -> str:
        """Looks at each piece of the text whether a name begins there: as fast for a million names as for one."""
        done, parts = 0, []
        for piece in PIECE.finditer(text):
            if piece.start() >= done and (end := self._name_at(text, piece.start(), piece[0])):
                parts += [text[done : piece.start()], "SAMPLE"]
                done = end
        return "".join([*parts, text[done:]])

    def _name_at(self, text: str, start: int, piece: str) -> int | None:
        """Where the longest name ends that begins at a place; None where none does."""
        for length in self._lengths.get(piece, ()):
            end = start + length
            name, after = text[start:end], text[end : end + 1]
            if name not in self._names or (_is_word(after) and _is_word(name[-1])):
                continue
            # A short name, or a small number, is an ordinary word too: it has to stand in quotes.
            plain = len(name) <= 2 or (name.isdigit() and len(name) <= 4)
            if not plain or (after and after in QUOTES and start and text[start - 1] in QUOTES):
                return end
        return None


def _is_word(character: str) -> bool:
    return character.isalnum() or character in ("_", "-")


def _installed() -> Iterator[tuple[str, str]]:
    """Places that are alike everywhere, but for where they are: what lies below them may be told."""
    for name, word in {"stdlib": "PYTHON", "platstdlib": "PYTHON", "purelib": "SITE", "platlib": "SITE"}.items():
        place = Path(sysconfig.get_path(name))
        yield from ((str(place), word), (str(place.resolve()), word))
    package = Path(__file__).resolve().parent
    yield from ((str(package), "BTKIT"), (str(package.with_name("plugins")), "BTKIT/plugins"))


def _folder_anywhere(name: str) -> re.Pattern[str]:
    """A folder by its name, with what stands before it; a name that is an ordinary word, only with something before."""
    before = r"(?<![\w-])(?:[^\s'\"]*/)" + ("?" if len(name) > 8 else "")
    return re.compile(rf"{before}{re.escape(name)}(?![\w-])")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for the number of the user
        return ""


def absolute_paths(value: Any) -> Iterator[str]:
    """Every text in a JSON value that is the path of something from the root of a file system."""
    if isinstance(value, str):
        if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
            yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from absolute_paths(item)


def command_words(arguments: Sequence[str]) -> list[str]:
    """A command line without what it is about: the command, its options, and the keys that `--set` gives."""
    said = list(arguments[:1]) if arguments[:1] == ["btkit"] else []
    for word in arguments[len(said) :]:
        option = re.match(r"--?[a-z][\w-]*", word)
        key = re.match(r"[A-Za-z_][\w.]*=", word)
        command = said in ([], ["btkit"]) and re.fullmatch(r"[a-z]+", word)
        said.append(option[0] if option else f"{key[0]}..." if key else word if command else "...")
    return said
