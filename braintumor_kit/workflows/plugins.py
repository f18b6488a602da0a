"""Importing plugins where they can do no harm."""

from concurrent.futures import ThreadPoolExecutor

from braintumor_kit.registry import PluginInfo, Registry
from braintumor_kit.testing.fresh import load_afresh


def verify_all(registry: Registry) -> dict[PluginInfo, str | None]:
    """Imports each plugin in a process of its own; its error where it has one."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = pool.map(lambda info: load_afresh(registry, info).error, registry.plugins)
        return dict(zip(registry.plugins, found, strict=True))
