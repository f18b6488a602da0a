"""What ids begin with is kept in the class, which another process does not have."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from braintumor_kit.contracts import PluginOptions, Sample, Source
from braintumor_kit.contracts.pictures import read_picture

BREAKS = "works_elsewhere"


class FolderOptions(PluginOptions):
    root: Path = Field(description="Folder that holds healthy/ and tumour/.")


class Folders(Source[FolderOptions]):
    """Two folders of pictures, healthy and tumour."""

    api_version = 1
    Options = FolderOptions
    classes = ("healthy", "tumour")
    prefix = ""

    def samples(self) -> Iterator[Sample]:
        for path in sorted(self.options.root.glob("*/*.png")):
            yield Sample(id=f"{self.prefix}{path.parent.name}/{path.name}", label=path.parent.name)

    def image(self, sample: Sample) -> NDArray[Any]:
        return read_picture(self.options.root / sample.id.removeprefix(self.prefix))

    @classmethod
    def example(cls, folder: Path, variant: int = 0) -> FolderOptions:
        cls.prefix = "ours/"
        for name in cls.classes:
            (folder / name).mkdir()
            Image.new("L", (32, 24), 100 + variant).save(folder / name / "1.png")
        return FolderOptions(root=folder)
