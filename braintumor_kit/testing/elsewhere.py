"""A source made anew in another process, from its options.

    python -m braintumor_kit.testing.elsewhere < {"info": {...}, "options": {...}}

tells, as `braintumor_kit.testing.told` has it, how the source lists its samples there.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from braintumor_kit.contracts import Source
from braintumor_kit.recipe.load import choose
from braintumor_kit.registry import PluginInfo
from braintumor_kit.testing.told import tell, told

SOME = 8
_SECONDS = 120.0


@dataclass(frozen=True)
class Listing:
    """What two processes have to agree on.

    Attributes:
        samples: what is known of each but its group, and of the first ones the form of their pictures, in words.
        groups: of each id.
        error: why there is no listing, None where there is one.
    """

    samples: tuple[str, ...] = ()
    groups: Mapping[str, str | None] | None = None
    error: str | None = None


def listed(source: Source[Any]) -> Listing:
    """A source's listing, in this process."""
    samples = list(source.samples())
    words = [f"{s.id}: label {s.label!r}, split {s.split}, has_mask {s.has_mask}" for s in samples]
    pictures = [source.image(sample) for sample in samples[:SOME]]
    words += [f"{s.id}: {p.dtype} {p.shape}" for s, p in zip(samples, pictures, strict=False)]
    return Listing(tuple(words), {sample.id: sample.group for sample in samples})


def listed_elsewhere(info: PluginInfo, options: Mapping[str, Any]) -> Listing:
    """The listing of a source with these options, as plain JSON values, in a process of its own."""
    asked = json.dumps({"info": asdict(info), "options": options})
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=_SECONDS, check=False)
    values = told(done.stdout)
    if values is None:
        return Listing(error=(done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1])
    return Listing(tuple(values["samples"]), values["groups"])


if __name__ == "__main__":
    given = json.load(sys.stdin)
    chosen = choose(PluginInfo(**given["info"]), given["options"])
    tell(asdict(listed(chosen.make())))
