"""The plugin that is checked, and what checks ask of it; one subject a kind."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from braintumor_kit.contracts import Backbone, Explainer, Maps, Plugin, PluginOptions, Sample, Source, Trunk
from braintumor_kit.contracts.randomness import seeded
from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.open import network_of
from braintumor_kit.registry import PluginInfo, Registry
from braintumor_kit.testing.elsewhere import Listing, listed, listed_elsewhere
from braintumor_kit.testing.fresh import Fresh, load_afresh
from braintumor_kit.testing.models import noise, random_model

SEED = 7
SOME = 8
"""Samples of a source that are read where reading all would be slow."""

SIDE, CHANNELS = 96, 3
"""Of the trunk that most checks of a backbone look at."""


class Subject:
    """A plugin that is checked.

    Args:
        registry: that knows it.
        kind, name: of the plugin.

    Raises:
        PluginError: where there is no such plugin, or there are two.
    """

    may_draw: ClassVar[bool] = False
    """Whether using the plugin may draw from the random numbers of the process."""

    def __init__(self, registry: Registry, kind: str, name: str) -> None:
        self.registry = registry
        self.info: PluginInfo = registry.find(kind, name)

    @cached_property
    def fresh(self) -> Fresh:
        """How the plugin takes to a process of its own."""
        return load_afresh(self.registry, self.info)

    @cached_property
    def plugin(self) -> type[Plugin[Any]]:
        """The plugin's class."""
        return self.registry.load(self.info.kind, self.info.name)

    @contextmanager
    def example(self, variant: int = 0) -> Iterator[tuple[PluginOptions, Path]]:
        """Options of the plugin's own example, and the folder that it wrote."""
        with tempfile.TemporaryDirectory(prefix="btkit-example-") as folder:
            yield self.plugin.example(Path(folder), variant), Path(folder)

    @contextmanager
    def made(self, variant: int = 0) -> Iterator[Any]:
        """The plugin with the options of its example."""
        with self.example(variant) as (options, _):
            yield self.plugin(options)

    def use(self, plugin: Any) -> bytes:
        """Uses the plugin; gives a digest of all that it gave."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Makes what `use` needs beside the plugin."""


class SourceSubject(Subject):
    """A source."""

    def use(self, plugin: Source[Any]) -> bytes:
        samples = list(plugin.samples())
        digest = hashlib.sha256(repr([without_group(sample) for sample in samples]).encode())
        for sample in samples[:SOME]:
            digest.update(pixels_of(plugin, sample))
            plugin.fingerprint(sample)
        return digest.digest()

    @cached_property
    def listings(self) -> tuple[Listing, Listing]:
        """The example as this process lists it, and another one."""
        with self.example() as (options, _):
            source: Any = self.plugin(options)
            return listed(source), listed_elsewhere(self.info, options.model_dump(mode="json"))


def without_group(sample: Sample) -> tuple[Any, ...]:
    """What is known of a sample but its group: one that changes, and a fingerprint that does, are promises apart."""
    return sample.id, sample.label, sample.split, sample.has_mask


def pixels_of(source: Source[Any], sample: Sample) -> bytes:
    """A digest of a sample's pixels and mask, whatever the source's own fingerprint says."""
    return Source.fingerprint(source, sample)


class BackboneSubject(Subject):
    """A backbone."""

    may_draw = True

    def use(self, plugin: Backbone[Any]) -> bytes:
        digest = hashlib.sha256()
        for weight in plugin.build(SIDE, CHANNELS).model.get_weights():
            digest.update(weight.tobytes())
        return digest.digest()

    @cached_property
    def trunk(self) -> Trunk:
        """A trunk that checks look at and leave as it is."""
        with self.made() as backbone, seeded(SEED):
            return backbone.build(SIDE, CHANNELS)


class ExplainerSubject(Subject):
    """An explainer."""

    @cached_property
    def network(self) -> Network:
        """A network with random weights."""
        return network_of(random_model())

    def prepare(self) -> None:
        _ = self.network

    def use(self, plugin: Explainer[Any]) -> bytes:
        return maps_of(plugin, self.network, pictures()).numpy().tobytes()


def pictures(count: int = 3) -> Tensor:
    """Noise, (count, H, W, C) in 0..255."""
    return torch.from_numpy(noise(count))


def targets(*classes: int) -> Tensor:
    """One-hot targets, (len(classes), 3)."""
    return torch.eye(3)[list(classes)]


def maps_of(explainer: Explainer[Any], network: Network, images: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Raw maps; without targets each image is explained for another class."""
    network.forget()
    network.looked_at_layer = False
    wanted = targets(*(number % 3 for number in range(len(images)))) if wanted is None else wanted
    given = explainer.maps(network, images.to(network.device), wanted.to(network.device))
    return (given.values if isinstance(given, Maps) else given).detach().cpu()


SUBJECTS: dict[str, type[Subject]] = {
    "source": SourceSubject,
    "backbone": BackboneSubject,
    "explainer": ExplainerSubject,
}
