"""`btkit doctor`: what btkit stands on here, what is missing and how to get it."""

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import keras
from packaging.requirements import Requirement

from braintumor_kit import __version__
from braintumor_kit.backend import torchvision_operators
from braintumor_kit.data.caches import cache_folder, cache_limit, entries
from braintumor_kit.model.precision import describe_device, resolve_precision
from braintumor_kit.runs import installed_version, package_versions


def examine() -> dict[str, dict[str, Any]]:
    """Sections of named findings: versions, device, torchvision, extras, caches."""
    return {
        "btkit": {"version": __version__, "python": platform.python_version(), "system": platform.platform()},
        "packages": package_versions(),
        "device": {
            **describe_device(),
            "precision": f'{resolve_precision("auto")} (what precision = "auto" means here)',
        },
        "backends": {
            "keras backend": keras.config.backend(),
            "torchvision": torchvision_operators(),
            "tensorflow": _tensorflow(),
        },
        "extras": _extras(),
        "caches": _caches(),
    }


def _tensorflow() -> str:
    if "tensorflow" in sys.modules:
        return "imported by something else in this process"
    return "installed, kept out" if installed_version("tensorflow") else "not installed, not needed"


def _extras() -> dict[str, str]:
    """Each extra: present, or the command that installs it."""
    try:
        metadata = distribution("braintumor-kit").metadata
    except PackageNotFoundError:
        return {}
    return {
        extra: _extra(extra, metadata.get_all("Requires-Dist") or [])
        for extra in metadata.get_all("Provides-Extra") or []
    }


def _extra(extra: str, requirements: list[str]) -> str:
    needed = [Requirement(text) for text in requirements if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", text)]
    missing = sorted(item.name for item in needed if installed_version(item.name) is None)
    if not missing:
        return "present"
    return f"missing {', '.join(missing)}: pip install 'braintumor-kit[{extra}]'"


def _caches() -> dict[str, Any]:
    kept = entries()
    return {
        "folder": str(cache_folder()),
        "caches": len(kept),
        "size": f"{sum(entry.size for entry in kept) / 1e6:.0f} MB of {cache_limit() / 1e9:g} GB at most",
    }
