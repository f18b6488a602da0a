"""Importing plugins where they can do no harm."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from braintumor_kit.registry import PluginInfo, Registry

SECONDS = 60.0
"""A plugin that takes longer to import is called faulty."""

_MARK = "btkit-plugin-error:"

_SCRIPT = (
    f"MARK = {_MARK!r}"
    + """
import sys
from pathlib import Path
from braintumor_kit.contracts import BtkitError
from braintumor_kit.registry import Registry
try:
    Registry(tuple(Path(folder) for folder in sys.argv[3:])).load(sys.argv[1], sys.argv[2])
except BtkitError as error:
    print(f"{MARK}{error}")
    sys.exit(1)
"""
)


def verify_all(registry: Registry) -> dict[PluginInfo, str | None]:
    """Imports each plugin in a process of its own; its error where it has one."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(registry.plugins, pool.map(lambda info: verify(registry, info), registry.plugins), strict=True))


def verify(registry: Registry, info: PluginInfo) -> str | None:
    """What is wrong with one plugin, or None."""
    command = [
        sys.executable,
        "-c",
        _SCRIPT,
        info.kind,
        info.name,
        *(str(folder) for folder in registry.folders),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"{info} takes longer than {SECONDS:.0f} s to import."
    if done.returncode == 0:
        return None
    _, marked, told = done.stdout.partition(_MARK)
    return told.strip() if marked else f"{info} ended the process with status {done.returncode}."
