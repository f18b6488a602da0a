"""The house stands as drawn: imports point one way, files are short, the package lists are complete."""

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "braintumor_kit"

MAY_IMPORT = {
    "errors": set(),
    "spelling": set(),
    "visible": set(),
    "regular": set(),
    "files": {"errors", "regular"},
    "faults": set(),
    "interrupts": set(),
    "scrub": set(),
    "locks": {"errors", "files"},
    "record": {"errors", "files"},
    "memory": set(),
    "notice": set(),
    "backend": {"errors"},
    "contracts": {"backend", "errors", "regular"},
    "registry": {"backend", "contracts", "errors", "spelling"},
    "recipe": {"contracts", "errors", "registry", "regular", "spelling"},
    "progress": {"errors", "interrupts", "visible"},
    "runs": {"errors", "files", "locks", "record"},
    "engines": {"backend", "errors", "interrupts", "progress", "runs"},
    "data": {"contracts", "engines", "errors", "files", "recipe", "registry"},
    "matching": {"errors", "files"},
    "archive": {"contracts", "errors", "files"},
    "audit": {"contracts", "data", "evaluation", "matching"},
    "model": {"backend", "contracts", "data", "errors", "memory"},
    "evaluation": {"contracts", "errors", "files"},
    "explanation": {"backend", "contracts", "errors", "evaluation", "model", "registry", "spelling"},
    "tracking": {"errors", "files", "interrupts", "notice", "recipe", "runs"},
    "sweep": {"errors", "files", "recipe"},
    "training": {"backend", "contracts", "data", "errors", "files", "memory", "model", "recipe", "spelling"},
    "export": {"contracts", "errors", "evaluation", "files", "model", "notice", "recipe", "regular"},
    "report": {"audit", "contracts", "evaluation", "files", "notice"},
    "scaffold": {"errors", "registry"},
    "testing": {"backend", "contracts", "explanation", "model", "recipe", "registry"},
    "workflows": {
        "archive", "audit", "backend", "contracts", "data", "engines", "errors", "evaluation", "explanation", "export",
        "faults", "files", "interrupts", "locks", "matching", "memory", "model", "notice", "progress", "recipe",
        "record", "registry", "report", "runs", "scrub", "sweep", "testing", "tracking", "training",
    },
    "estimator": {
        "contracts", "data", "files", "model", "progress", "recipe", "registry", "runs", "training", "workflows",
    },
    "serve": {
        "contracts", "data", "errors", "explanation", "model", "notice", "progress", "recipe", "registry", "report",
        "workflows",
    },
    "bench": {
        "archive", "backend", "contracts", "data", "engines", "errors", "evaluation", "explanation", "files", "memory",
        "model", "progress", "recipe", "registry", "report", "runs", "training", "workflows",
    },
    "commands": {
        "audit", "bench", "data", "engines", "errors", "faults", "files", "interrupts", "notice", "progress", "recipe",
        "registry", "runs", "scaffold", "serve", "sweep", "testing", "visible", "workflows",
    },
    "api": {
        "data", "errors", "explanation", "files", "memory", "model", "notice", "progress", "recipe", "registry",
        "report", "runs", "workflows",
    },
    "__main__": {"commands"},
    "__init__": {"api", "estimator"},
}  # fmt: skip
"""What each part of braintumor_kit may import of the others; arrows point down only."""

PLUGINS_MAY_IMPORT = {"contracts"}
"""The built-in plugins use nothing that is not in the contracts, like anyone's."""


def modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imported(path: Path) -> Iterator[str]:
    """Names of modules imported anywhere in a file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts(path: Path) -> set[str]:
    """Parts of braintumor_kit that a file imports."""
    names = (name.split(".") for name in imported(path) if name.startswith("braintumor_kit"))
    return {name[1] for name in names if len(name) > 1 and not name[1].startswith("__")}


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_imports_point_one_way(part: str) -> None:
    single = PACKAGE / f"{part}.py"
    for path in [single] if single.is_file() else modules(PACKAGE / part):
        assert parts(path) - {part} <= MAY_IMPORT[part], path.relative_to(ROOT)


def test_the_table_knows_every_part_and_has_no_circle() -> None:
    found = {
        path.stem if path.suffix else path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()
    }
    assert found - {"__pycache__"} == set(MAY_IMPORT)
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        free = [part for part in MAY_IMPORT if part not in order and MAY_IMPORT[part] <= set(order)]
        assert free, f"a circle among {set(MAY_IMPORT) - set(order)}"
        order += free


@pytest.mark.parametrize("path", modules(ROOT / "plugins"), ids=lambda path: path.stem)
def test_plugins_import_contracts_and_no_other_plugin(path: Path) -> None:
    assert parts(path) <= PLUGINS_MAY_IMPORT
    own = f"btkit_plugins.{path.stem if path.parent.name != 'phantom' else 'phantom'}."  # a plugin's own package
    assert not [name for name in imported(path) if name.startswith("btkit_plugins") and not name.startswith(own)]


@pytest.mark.parametrize("path", modules(PACKAGE) + modules(ROOT / "plugins"), ids=lambda path: path.stem)
def test_files_are_short_and_well_named(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    assert path.stem not in ("utils", "util", "helpers", "misc")
    assert ast.get_docstring(ast.parse(text)), "a module says what it is for"


def test_nothing_forbidden_is_imported() -> None:
    for path in modules(PACKAGE) + modules(ROOT / "plugins"):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"tensorflow", "pickle", "cloudpickle", "dill"}, path


def test_each_dependency_has_its_licence_listed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    names = {re.split(r"[\[<>=]", line)[0] for text in wanted for line in text.split() if line}
    rows = re.findall(r"^\| ([\w-]+) \| ([^|]+) \|", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    assert {name for name, licence in rows if licence.strip() not in ("", "---")} - {"package"} == names


def test_setup_cfg_lists_every_package_and_plugin() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    mapped = {"braintumor_kit": "braintumor_kit", "plugins": "btkit_plugins", "recipes": "btkit_recipes"}
    found = set()
    for folder, name in mapped.items():
        for path in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([name, *path.parent.relative_to(ROOT / folder).parts]))
    assert listed == found
    points = setup["options.entry_points"]
    for kind in ("sources", "backbones", "explainers"):
        files = {path.stem for path in (ROOT / "plugins" / kind).glob("*.py")} - {"__init__"}
        assert set(re.findall(r"^(\w+) =", points[f"btkit.{kind}"], re.M)) == files


def test_the_readme_shows_every_command_and_option() -> None:
    from braintumor_kit.commands.main import COMMANDS, cli

    readme = (ROOT / "README.md").read_text()
    for name in COMMANDS:
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        inner = getattr(command, "commands", {"": command})
        for sub, described in inner.items():
            assert f"btkit {name} {sub}".strip() in readme
            for parameter in described.params:
                for option in (text for text in parameter.opts if text.startswith("--")):
                    assert option in readme, f"btkit {name} {sub} {option}"
