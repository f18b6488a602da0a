"""What plugins of all kinds have in common.

A plugin is one class in one file: `<kind>s/<name>.py` in a folder that the user names, or anywhere in a package that
has an entry point `name = module:Class` in `btkit.sources`, `btkit.backbones` or `btkit.explainers`. A class that keeps
a promise below, and all those of its own kind, works wherever btkit uses it.
"""

from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Generic, TypeVar, cast

from braintumor_kit.contracts.options import PluginOptions

OptionsT = TypeVar("OptionsT", bound=PluginOptions)

PROMISES: Mapping[str, str] = {
    "listed_unimported": "it is listed without being imported, under a name of small letters, digits and underscores",
    "loads_alone": "it can be imported in a process that has imported no other plugin",
    "imports_no_tensorflow": "importing it does not import tensorflow, nor try to",
    "has_example": "`example` gives options to check it with: the defaults, or others where an option is required",
    "options_described": "every option has a description, those of tables inside tables too",
    "options_refuse_unknown": "an option that it does not have is refused",
    "options_survive_toml": "options that are written as TOML and read again are equal to what they were",
    "gives_reasons": "each property that it declares untrue, and each known failure, has a reason",
    "follows_seed": "made anew and used under the same seed of Keras, NumPy and torch, it gives the same",
    "leaves_global_state": "using it leaves as they were: Keras' data format, float type, dtype policy and epsilon; "
    "torch's default dtype, threads, gradient mode, precisions and global hooks; environment and working directory; "
    "the random numbers of Python, NumPy and torch, from which only `Backbone.build` may draw, and which it does not "
    "seed",
}
"""What every plugin promises; `btkit plugins check` has a check of the same name for each."""


class Plugin(ABC, Generic[OptionsT]):
    """Base of `Source`, `Backbone` and `Explainer`.

    A plugin class states the version of the contract that it was written for (`api_version`) and its options
    (`Options`). Making an instance is cheap: it reads no data and builds no network. The first line of the class's
    docstring is what `btkit plugins show` prints.
    """

    kind: ClassVar[str]
    """"source", "backbone" or "explainer"; set by the contract."""

    current_api_version: ClassVar[int]
    """The version of the contract that this btkit has; set by the contract."""

    api_version: ClassVar[int]
    """The version of the contract that the plugin was written for; set by the plugin itself."""

    Options: ClassVar[type[PluginOptions]]
    """The plugin's options, a frozen pydantic model."""

    reasons: ClassVar[Mapping[str, str]] = {}
    """Why a property of the kind, such as `Explainer.class_specific`, is declared untrue: `{"class_specific": "..."}`.
    With a reason, the checks that the property stands for are waived."""

    known_failures: ClassVar[Mapping[str, str]] = {}
    """Promises that the plugin does not keep, by name, and why. Their checks are expected to fail, and have to."""

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    @classmethod
    def example(cls, folder: Path, variant: int = 0) -> OptionsT:
        """Options to check the plugin with, small and quick: the defaults, unless a plugin says otherwise.

        Args:
            folder: empty, for files that the options name. A source writes a small data set of its kind there.
            variant: 0 or 1. With another one at least one pixel of the source's first sample is another.
        """
        return cast(OptionsT, cls.Options())
