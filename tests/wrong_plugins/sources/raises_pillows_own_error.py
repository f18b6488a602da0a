"""A file that cannot be read raises whatever Pillow raises."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from braintumor_kit.contracts import PluginOptions, Sample, Source

BREAKS = "broken_file_reported"


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
        return np.asarray(Image.open(self.options.root / sample.id))

    @classmethod
    def example(cls, folder: Path, variant: int = 0) -> FolderOptions:
        for name in cls.classes:
            (folder / name).mkdir()
            Image.new("L", (32, 24), 100 + variant).save(folder / name / "1.png")
        return FolderOptions(root=folder)
