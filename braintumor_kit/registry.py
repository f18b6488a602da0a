"""Knows the name, origin and target of every plugin without importing it, and imports only what is asked for.

Plugins come from two places: entry points of installed distributions (groups `btkit.sources`, `btkit.backbones`,
`btkit.explainers`; the built-in plugins too), and files `<kind>s/<name>.py` in folders that the user names. Nothing
is searched unasked, a plugin that is broken harms only what names it, and no plugin replaces another silently.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from braintumor_kit.backend import use_torch_backend
from braintumor_kit.contracts import (
    Backbone,
    BtkitError,
    Explainer,
    InputError,
    Plugin,
    PluginError,
    PluginOptions,
    Source,
)
from braintumor_kit.errors import is_out_of_memory
from braintumor_kit.spelling import nearest

CONTRACTS: Mapping[str, type[Plugin[Any]]] = {"source": Source, "backbone": Backbone, "explainer": Explainer}
KINDS = tuple(CONTRACTS)
ENVIRONMENT = "BTKIT_PLUGINS"
NAME = re.compile(r"[a-z][a-z0-9_]*")
"""Names of plugins: those that a file, a recipe's value and a module can have alike."""


@dataclass(frozen=True, order=True)
class PluginInfo:
    """What is known of a plugin before it is imported.

    Attributes:
        kind: "source", "backbone" or "explainer".
        name: the name that recipes use.
        origin: the distribution and version that brings it, or "file".
        target: `module:Class` of an entry point, or the file's path.
    """

    kind: str
    name: str
    origin: str
    target: str

    @property
    def version(self) -> str:
        """What tells two versions of the plugin apart: its distribution's, or the digest of its file."""
        if self.origin != "file":
            return self.origin
        return f"sha256 {hashlib.sha256(Path(self.target).read_bytes()).hexdigest()}"

    @property
    def module(self) -> str:
        """Name of the module that importing the plugin makes."""
        if self.origin != "file":
            return self.target.partition(":")[0]
        return f"btkit_plugin_file_{self.kind}_{self.name}"

    @property
    def package(self) -> str:
        """Name of the package that the module stands in, or its own."""
        return self.module.partition(".")[0]

    @contextmanager
    def blamed(self, doing: str) -> Iterator[None]:
        """Inside, the plugin's own code runs: what it raises unasked is told as its fault, not as one of btkit.

        Raises:
            PluginError: for anything but btkit's own errors and lack of memory.
        """
        try:
            yield
        except BtkitError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise PluginError(f"{self} failed while {doing}: {type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' ({self.where})"

    @property
    def where(self) -> str:
        """Origin and target in words, for messages."""
        return self.target if self.origin == "file" else f"{self.target} from {self.origin}"


@dataclass(frozen=True)
class Registry:
    """A read-only view of the plugins at hand.

    Attributes:
        folders: plugin folders named by the user, searched for `<kind>s/<name>.py`.
    """

    folders: tuple[Path, ...] = field(default=())

    @classmethod
    def from_environment(cls, folders: Iterable[Path] = ()) -> "Registry":
        """The registry with the given folders and those of `BTKIT_PLUGINS` (separated as in PATH).

        Raises:
            InputError: where one of the folders does not exist.
        """
        named = [*folders, *folders_of_environment()]
        return cls(tuple(dict.fromkeys(_existing(folder) for folder in named)))

    @cached_property
    def plugins(self) -> tuple[PluginInfo, ...]:
        """Every plugin known, sorted by kind (source, backbone, explainer) and name; none is imported."""
        found = {*self._installed[0], *_in_folders(self.folders)}
        return tuple(sorted(found, key=lambda info: (KINDS.index(info.kind), info)))

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Installed distributions whose metadata are damaged, with the reason; what plugins they bring nobody knows."""
        return self._installed[1]

    @cached_property
    def _installed(self) -> tuple[tuple[PluginInfo, ...], tuple[str, ...]]:
        return _installed()

    def names(self, kind: str) -> list[str]:
        """Names of all plugins of a kind, each once."""
        return sorted({info.name for info in self.plugins if info.kind == kind})

    def find(self, kind: str, name: str) -> PluginInfo:
        """The plugin of that name.

        Raises:
            PluginError: where there is none (with the nearest name) or more than one (with every origin).
        """
        found = [info for info in self.plugins if (info.kind, info.name) == (kind, name)]
        if not found:
            raise PluginError(_missing(kind, name, self.names(kind)))
        if len(found) > 1:
            places = " and ".join(info.where for info in found)
            raise PluginError(
                f"there are {len(found)} {kind} plugins named '{name}': {places}. Remove or rename one of them."
            )
        return found[0]

    def load(self, kind: str, name: str) -> type[Plugin[Any]]:
        """Imports one plugin and checks that it keeps to the form of its contract.

        Raises:
            PluginError: where it is missing, doubled, cannot be imported, or is written for another API version.
        """
        info = self.find(kind, name)
        use_torch_backend()  # before a plugin imports Keras
        plugin = _import(info)
        _check(info, plugin)
        return plugin


def folders_of_environment() -> list[Path]:
    """The plugin folders that `BTKIT_PLUGINS` names, whether or not they exist."""
    return [Path(entry) for entry in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if entry]


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"plugin folder '{folder}' (from --plugins or {ENVIRONMENT}) does not exist.")
    return folder.resolve()


def _missing(kind: str, name: str, known: list[str]) -> str:
    near = nearest(name, known)
    hint = f"did you mean '{near}'? " if near else ""
    return f"there is no {kind} plugin named '{name}'; {hint}Known: {', '.join(known) or 'none'}."


def _installed() -> tuple[tuple[PluginInfo, ...], tuple[str, ...]]:
    """The plugins of installed distributions, and what is wrong with those that cannot be read. Of two of one name the
    first on the path counts, as in imports."""
    found: dict[str, list[PluginInfo]] = {}
    unreadable = []
    for distribution in distributions():
        try:
            plugins = _plugins_of(distribution)
            if plugins:
                found.setdefault(plugins[0].origin.partition(" ")[0], plugins)
        except Exception as error:  # damaged metadata raise errors of many kinds
            place = getattr(distribution, "_path", "a distribution")
            unreadable.append(f"{place}: {type(error).__name__}: {error}")
    return tuple(info for plugins in found.values() for info in plugins), tuple(unreadable)


def _plugins_of(distribution: Distribution) -> list[PluginInfo]:
    groups = {f"btkit.{kind}s": kind for kind in KINDS}
    entries = [entry for entry in distribution.entry_points if entry.group in groups]
    if not entries:
        return []
    origin = f"{distribution.name or 'unnamed'} {distribution.version or ''}".rstrip()
    return [PluginInfo(groups[entry.group], entry.name, origin, _target(entry)) for entry in entries]


def _target(entry: EntryPoint) -> str:
    """`module:Class`, without extras; what is of another form as it stands: it is told when the plugin is named."""
    return f"{entry.module}:{entry.attr}" if entry.pattern.match(entry.value) else entry.value


def _in_folders(folders: Iterable[Path]) -> Iterator[PluginInfo]:
    for folder in folders:
        for kind in KINDS:
            for path in sorted(folder.glob(f"{kind}s/*.py")):
                if NAME.fullmatch(path.stem):
                    yield PluginInfo(kind, path.stem, "file", str(path))


def _import(info: PluginInfo) -> Any:
    try:
        if info.origin == "file":
            return _only_plugin_class(info, _module_from_file(info))
        module, _, attribute = info.target.partition(":")
        return getattr(importlib.import_module(module), attribute)
    except PluginError:
        raise
    # The plugin is someone else's code: whatever it raises is reported as its own fault, and exits are not obeyed.
    except (Exception, SystemExit) as error:
        raise PluginError(f"{info} cannot be imported: {type(error).__name__}: {error}") from error


def _module_from_file(info: PluginInfo) -> ModuleType:
    name = info.module
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == info.target:
        return loaded
    spec = importlib.util.spec_from_file_location(name, info.target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _only_plugin_class(info: PluginInfo, module: ModuleType) -> Any:
    contract = CONTRACTS[info.kind]
    defined = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, contract) and value.__module__ == module.__name__
    ]
    if len(defined) != 1:
        names = ", ".join(sorted(value.__name__ for value in defined)) or "none"
        raise PluginError(
            f"{info.target} must define exactly one subclass of braintumor_kit.contracts.{contract.__name__}; "
            f"it defines {names}."
        )
    return defined[0]


def _check(info: PluginInfo, plugin: Any) -> None:
    contract = CONTRACTS[info.kind]
    if not (isinstance(plugin, type) and issubclass(plugin, contract)):
        raise PluginError(f"{info} is not a subclass of braintumor_kit.contracts.{contract.__name__}.")
    if inspect.isabstract(plugin):
        missing = ", ".join(sorted(plugin.__abstractmethods__))
        raise PluginError(f"{info} does not define {missing}, which its contract asks for.")
    version = getattr(plugin, "api_version", None)
    if version != contract.current_api_version:
        states = "states no api_version" if version is None else f"is written for API version {version!r}"
        advice = "update btkit" if isinstance(version, int) and version > contract.current_api_version else "update it"
        raise PluginError(
            f"{info} {states}; this btkit has {info.kind} API version {contract.current_api_version}: {advice}."
        )
    for name in ("reasons", "known_failures"):
        said = getattr(plugin, name)
        if not isinstance(said, Mapping) or not all(isinstance(text, str) for pair in said.items() for text in pair):
            raise PluginError(f"{info} must set {name} to a mapping of names to sentences, not {said!r}.")
    options = getattr(plugin, "Options", None)
    if not (isinstance(options, type) and issubclass(options, PluginOptions)):
        raise PluginError(f"{info} must set Options to a subclass of braintumor_kit.contracts.PluginOptions.")
