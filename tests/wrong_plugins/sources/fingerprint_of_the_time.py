"""The digest is of the time at which a file was written."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from braintumor_kit.contracts import PluginOptions, Sample, Source
from braintumor_kit.contracts.pictures import read_picture

BREAKS = "digest_follows_pixels"


class FolderOptions(PluginOptions):
    root: Path = Field(description="Folder that holds healthy/ and tumour/.")


class Folders(Source[FolderOptions]):
    """Two folders of pictures, healthy and tumour."""

    api_version = 1
    Options = FolderOptions
    classes = ("healthy", "tumour")

    def samples(self) -> Iterator[Sample]:
        for path in sorted(self.options.root.glob("*/*.bmp")):
            yield Sample(id=f"{path.parent.name}/{path.name}", label=path.parent.name)

    def image(self, sample: Sample) -> NDArray[Any]:
        return read_picture(self.options.root / sample.id)

    def fingerprint(self, sample: Sample) -> bytes:
        time = (self.options.root / sample.id).stat().st_mtime_ns
        return hashlib.sha256(f"{sample.id} {time}".encode()).digest()

    @classmethod
    def example(cls, folder: Path, variant: int = 0) -> FolderOptions:
        for name in cls.classes:
            (folder / name).mkdir()
            Image.new("L", (32, 24), 100 + variant).save(folder / name / "1.bmp")
        return FolderOptions(root=folder)
