"""What importing a plugin does in a process that has imported nothing else.

    python -m braintumor_kit.testing.fresh KIND NAME [FOLDER]...

tells, as `braintumor_kit.testing.told` has it, whether listing imported the plugin, the error that loading it ended
with, and whether its own code asked for tensorflow.
"""

import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from braintumor_kit.contracts import BtkitError
from braintumor_kit.registry import PluginInfo, Registry
from braintumor_kit.testing.told import tell, told

SECONDS = 60.0
"""A plugin that takes longer to import is called faulty."""


@dataclass(frozen=True)
class Fresh:
    """How a plugin took to a fresh process.

    Attributes:
        listed: whether the registry knew it.
        imported_by_listing: whether listing imported it.
        wants_tensorflow: whether the plugin's own code imported tensorflow or tried to.
        error: what loading it ended with, None where it loaded.
    """

    listed: bool = True
    imported_by_listing: bool = False
    wants_tensorflow: bool = False
    error: str | None = None


def load_afresh(registry: Registry, info: PluginInfo) -> Fresh:
    """Lists and loads a plugin in a process of its own."""
    command = [sys.executable, "-m", __name__, info.kind, info.name, *map(str, registry.folders)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Fresh(error=f"{info} takes longer than {SECONDS:.0f} s to import.")
    if (values := told(done.stdout)) is not None:
        return Fresh(**values)
    return Fresh(error=f"{info} ended the process with status {done.returncode}.")


def _load_here(kind: str, name: str, folders: list[str]) -> Fresh:
    registry = Registry(tuple(Path(folder) for folder in folders))
    try:
        info = registry.find(kind, name)
    except BtkitError as error:
        return Fresh(listed=name in registry.names(kind), error=str(error))
    imported = info.module in sys.modules
    asked: list[str] = []
    sys.addaudithook(lambda event, arguments: _note(event, arguments, info.package, asked))
    try:
        registry.load(kind, name)
    except BtkitError as error:
        return Fresh(True, imported, bool(asked), str(error))
    return Fresh(True, imported, bool(asked) or "tensorflow" in sys.modules)


def _note(event: str, arguments: tuple[Any, ...], package: str, asked: list[str]) -> None:
    """Notes that the plugin's own package, and not a library that it imports, asks for tensorflow."""
    if event != "import" or str(arguments[0]).partition(".")[0] != "tensorflow":
        return
    frame: FrameType | None = sys._getframe(2)  # past this function and the hook that called it
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith("importlib"):
        frame = frame.f_back
    importer = "" if frame is None else str(frame.f_globals.get("__name__", ""))
    if importer == package or importer.startswith(f"{package}."):
        asked.append(importer)


if __name__ == "__main__":
    tell(asdict(_load_here(sys.argv[1], sys.argv[2], sys.argv[3:])))
