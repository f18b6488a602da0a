"""An option is required, and there is no example that gives it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import Field

from braintumor_kit.contracts import PluginOptions, Sample, Source
from braintumor_kit.contracts.pictures import read_picture

BREAKS = "has_example"


class FolderOptions(PluginOptions):
    root: Path = Field(description="Folder that holds healthy/ and tumour/.")


class Folders(Source[FolderOptions]):
    """Two folders of pictures, healthy and tumour."""

    api_version = 1
    Options = FolderOptions
    classes = ("healthy", "tumour")

    def samples(self) -> Iterator[Sample]:
        for path in sorted(self.options.root.glob("*/*.png")):
            yield Sample(id=f"{path.parent.name}/{path.name}", label=path.parent.name)

    def image(self, sample: Sample) -> NDArray[Any]:
        return read_picture(self.options.root / sample.id)
