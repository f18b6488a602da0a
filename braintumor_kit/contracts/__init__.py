"""What a plugin author reads: one short file a kind, the records that cross borders, the errors.

    options.py     how a plugin declares its options
    plugin.py      what all kinds have in common
    sources.py     a data source yields samples
    backbones.py   a backbone builds the convolutional trunk
    explainers.py  an explainer turns (model, images, targets) into maps

What a plugin may raise, and what each error means for the user, stands in `braintumor_kit/errors.py`.
"""

from braintumor_kit.contracts.backbones import Backbone, Trunk
from braintumor_kit.contracts.explainers import Explainer, Maps, ModelView
from braintumor_kit.contracts.options import NameOrPath, NoOptions, PluginOptions
from braintumor_kit.contracts.plugin import Plugin
from braintumor_kit.contracts.sources import SPLITS, Sample, Source
from braintumor_kit.errors import BtkitError, ImageError, InputError, PluginError, WorkError

__all__ = [
    "SPLITS",
    "Backbone",
    "BtkitError",
    "Explainer",
    "ImageError",
    "InputError",
    "Maps",
    "ModelView",
    "NameOrPath",
    "NoOptions",
    "Plugin",
    "PluginError",
    "PluginOptions",
    "Sample",
    "Source",
    "Trunk",
    "WorkError",
]
