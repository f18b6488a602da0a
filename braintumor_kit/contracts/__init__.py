"""What a plugin author reads: one short file a kind, the records that cross borders, the errors.

    options.py     how a plugin declares its options
    plugin.py      what all kinds have in common
    sources.py     a data source yields samples
    backbones.py   a backbone builds the convolutional trunk
    explainers.py  an explainer turns (model, images, targets) into maps

Each states its promises, and `btkit plugins check KIND NAME` holds a plugin to every one of them. What a plugin may
raise, and what each error means for the user, stands in `braintumor_kit/errors.py`. Beside the contracts there are
tools, which a plugin takes or leaves:

    classes.py, folders.py, pictures.py, matlab.py   for sources: spellings of classes, what a folder holds, decoding
    porting.py, pretrained.py, presets.py            for backbones: weights from torch, downloads, presets
    baselines.py                                     for explainers: images without what matters
    randomness.py                                    for all: libraries that draw from global random numbers

The built-in plugins use nothing of btkit but what is here.
"""

from braintumor_kit.backend import import_torchvision, use_torch_backend
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
    "import_torchvision",
    "use_torch_backend",
]
