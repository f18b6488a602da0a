"""A source made anew in another process, from its options.

    python -m braintumor_kit.testing.elsewhere < {"info": {...}, "options": {...}}

prints its samples, and the form of its first pictures, as one JSON value behind a mark.
"""

import json
import sys
from typing import Any

from braintumor_kit.contracts import Source
from braintumor_kit.recipe.load import choose
from braintumor_kit.registry import PluginInfo

MARK = "btkit-source-elsewhere:"
SOME = 8


def described(source: Source[Any]) -> list[Any]:
    """What two processes have to agree on: what is known of each sample, and the form of the first pictures."""
    samples = list(source.samples())
    listed: list[Any] = [[sample.id, sample.label, sample.split, sample.has_mask] for sample in samples]
    pictures = [source.image(sample) for sample in samples[:SOME]]
    return listed + [[str(picture.dtype), list(picture.shape)] for picture in pictures]


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    chosen = choose(PluginInfo(**asked["info"]), asked["options"])
    print(MARK + json.dumps(described(chosen.make())))
