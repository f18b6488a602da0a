"""What plugins of all kinds have in common."""

from abc import ABC
from typing import ClassVar, Generic, TypeVar

from braintumor_kit.contracts.options import PluginOptions

OptionsT = TypeVar("OptionsT", bound=PluginOptions)


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

    def __init__(self, options: OptionsT) -> None:
        self.options = options
