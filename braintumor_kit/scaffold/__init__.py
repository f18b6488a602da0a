"""Begins a plugin: a working, documented file, its test, and a package around them where one is wanted.

What is written keeps to its contract as it stands. The texts are `templates/`, filled in by jinja2.
"""

import keyword
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from braintumor_kit.errors import InputError
from braintumor_kit.registry import CONTRACTS, NAME, Registry


def write_plugin(registry: Registry, kind: str, name: str, folder: Path) -> list[Path]:
    """Writes `<kind>s/<name>.py` and `tests/test_<kind>_<name>.py` into a folder of plugins.

    Returns:
        The files written, the plugin first.

    Raises:
        InputError: where the name cannot be one, is taken, or a file is there already; nothing is written then.
    """
    _check(registry, kind, name)
    return _write(
        {
            folder / f"{kind}s" / f"{name}.py": _filled(f"{kind}.py.jinja", kind, name),
            folder / "tests" / f"test_{kind}_{name}.py": _filled("test.py.jinja", kind, name),
        }
    )


def write_package(registry: Registry, kind: str, name: str, folder: Path) -> list[Path]:
    """Writes an installable package `btkit-<name>` into a folder: setup.cfg with the entry point, plugin and test.

    Returns:
        The files written, the plugin first.

    Raises:
        InputError: as `write_plugin`.
    """
    _check(registry, kind, name)
    root = folder / _distribution(name)
    package = root / f"btkit_{name}"
    return _write(
        {
            package / f"{name}.py": _filled(f"{kind}.py.jinja", kind, name),
            package / "__init__.py": _filled("init.py.jinja", kind, name),
            root / "tests" / f"test_{kind}_{name}.py": _filled("test.py.jinja", kind, name, package=True),
            root / "setup.cfg": _filled("setup.cfg.jinja", kind, name),
            root / "pyproject.toml": _filled("pyproject.toml.jinja", kind, name),
            root / "README.md": _filled("README.md.jinja", kind, name),
        }
    )


def _check(registry: Registry, kind: str, name: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or name.endswith("_"):
        raise InputError(
            f"'{name}' cannot name a plugin: take small letters, digits and underscores, a letter first, no underscore "
            "last, and no word of Python's own; for example my_method."
        )
    taken = [info for info in registry.plugins if (info.kind, info.name) == (kind, name)]
    if taken:
        raise InputError(f"there is {taken[0]} already: choose another name.")


def _distribution(name: str) -> str:
    return f"btkit-{name.replace('_', '-')}"


def _filled(template: str, kind: str, name: str, package: bool = False) -> str:
    words = name.split("_")
    environment = Environment(
        loader=PackageLoader("braintumor_kit.scaffold"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    return environment.get_template(template).render(
        kind=kind,
        name=name,
        package=package,
        title=" ".join(words).capitalize(),
        cls="".join(word.capitalize() for word in (*words, kind)),  # no name of the language or of the contract
        distribution=_distribution(name),
        api_version=CONTRACTS[kind].current_api_version,
    )


def _write(texts: dict[Path, str]) -> list[Path]:
    _refuse_existing(texts)
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
    return list(texts)


def _refuse_existing(paths: Iterable[Path]) -> None:
    there = [path for path in paths if path.exists()]
    if there:
        raise InputError(f"{there[0]} is there already, and nothing was written: choose another name, or remove it.")
