"""Shuffles under a seed of its own, which it gives to all of NumPy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from braintumor_kit.contracts import PluginOptions, Sample, Source
from braintumor_kit.contracts.pictures import read_picture

BREAKS = "leaves_global_state"


class FolderOptions(PluginOptions):
    root: Path = Field(description="Folder that holds healthy/ and tumour/.")


class Folders(Source[FolderOptions]):
    """Two folders of pictures, healthy and tumour."""

    api_version = 1
    Options = FolderOptions
    classes = ("healthy", "tumour")

    def samples(self) -> Iterator[Sample]:
        paths = sorted(self.options.root.glob("*/*.png"))
        np.random.seed(0)
        for i in np.random.permutation(len(paths)):
            yield Sample(id=f"{paths[i].parent.name}/{paths[i].name}", label=paths[i].parent.name)

    def image(self, sample: Sample) -> NDArray[Any]:
        return read_picture(self.options.root / sample.id)

    @classmethod
    def example(cls, folder: Path, variant: int = 0) -> FolderOptions:
        for name in cls.classes:
            (folder / name).mkdir()
            Image.new("L", (32, 24), 100 + variant).save(folder / name / "1.png")
        return FolderOptions(root=folder)
