"""Puts what a contract's module states into its page: its promises as a table, its names one after the other.

A page says `<!-- promises: sources -->` or `<!-- members: sources -->`. The module is read, not imported.
"""

import ast
import re
from pathlib import Path

CONTRACTS = Path(__file__).resolve().parents[1] / "braintumor_kit" / "contracts"
MARK = re.compile(r"<!-- (promises|members): (\w+) -->")
TABLES = ("PROMISES", "WAIVED_BY")


def on_page_markdown(markdown: str, **_: object) -> str:
    """The page, with each mark replaced; mkdocs calls it."""
    return MARK.sub(lambda mark: {"promises": promises, "members": members}[mark[1]](mark[2]), markdown)


def promises(contract: str) -> str:
    """The table of a contract's promises, and of the properties that waive them."""
    stated, waivers = (_table(contract, name) for name in TABLES)
    rows = [f"| `{name}` | {said.replace('|', chr(92) + '|')} |" for name, said in stated.items()]
    head = ["| promise | what it says |", "| --- | --- |"]
    if waivers:
        owner = f"braintumor_kit.contracts.{contract}.{contract.removesuffix('s').capitalize()}"
        links = [f"[`{waivers[name]}`][{owner}.{waivers[name]}]" if name in waivers else "" for name in stated]
        head = [head[0] + " waived by |", head[1] + " --- |"]
        rows = [f"{row} {link} |" for row, link in zip(rows, links, strict=True)]
    return "\n".join([*head, *rows])


def members(contract: str) -> str:
    """A directive of mkdocstrings for each public name that a contract's module defines, its promises left out."""
    names = [name for node in _module(contract).body for name in _defined(node)]
    shown = [name for name in names if not name.startswith("_") and name not in TABLES]
    return "\n\n".join(f"::: braintumor_kit.contracts.{contract}.{name}" for name in shown)


def _module(contract: str) -> ast.Module:
    return ast.parse((CONTRACTS / f"{contract}.py").read_text(encoding="utf-8"))


def _table(contract: str, name: str) -> dict[str, str]:
    values = [node.value for node in _module(contract).body if name in _defined(node)]
    return ast.literal_eval(values[0]) if values else {}


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
