"""What an exported file says of itself: classes, pixels, certainty, where it comes from."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from braintumor_kit.errors import InputError
from braintumor_kit.evaluation.certainty import Limits
from braintumor_kit.model.load import MAX_CLASSES
from braintumor_kit.notice import NOTICE
from braintumor_kit.recipe.tables import PixelsTable

FORMAT = 1
"""Rises when the outputs or these words change their meaning."""


@dataclass(frozen=True)
class About:
    """What whoever uses the file needs to know.

    Attributes:
        version: of btkit, which wrote it.
        classes: names of the outputs.
        pixels: how pictures become what it takes.
        certainty: what its calibration and score are held against; None where nobody settled them.
        digest: SHA-256 of the model.keras that it was made of.
        warning: what its run's figures have to be read with; None where nothing speaks against them.
    """

    version: str
    classes: tuple[str, ...]
    pixels: PixelsTable
    certainty: Limits | None
    digest: str
    warning: str | None = None

    def properties(self) -> dict[str, str]:
        """All of it as text by name, JSON where it is no text or number."""
        values = {
            "btkit_format": str(FORMAT),
            "btkit_version": self.version,
            "classes": json.dumps(list(self.classes), ensure_ascii=False),
            "pixels": json.dumps(self.pixels.model_dump(mode="json")),
            "model_digest": self.digest,
            "notice": NOTICE,
        }
        if self.certainty is not None:
            values["certainty"] = json.dumps(_certainty(self.certainty))
        if self.warning is not None:
            values["warning"] = self.warning
        return values

    @classmethod
    def of_properties(cls, values: Mapping[str, str], name: str) -> "About":
        """From what `properties` gave.

        Args:
            name: how messages call the file.

        Raises:
            InputError: where btkit did not write them, or they are damaged.
        """
        if "btkit_format" not in values:
            raise InputError(
                f"{name} was not written by `btkit export`: nobody knows how pictures become what it takes, nor what "
                "its outputs are. Use the .keras file, or export the run."
            )
        if values["btkit_format"] != str(FORMAT):
            said = values["btkit_format"][:20]
            raise InputError(f"{name} is of format {said!r}, which this btkit does not know: it reads {FORMAT}.")
        try:
            "".join(values.values()).encode()
            return cls(
                values.get("btkit_version", ""),
                _classes(json.loads(values["classes"])),
                PixelsTable.model_validate(json.loads(values["pixels"])),
                _limits(json.loads(values["certainty"])) if "certainty" in values else None,
                values["model_digest"],
                values.get("warning"),
            )
        except ValidationError as error:
            place = ".".join(str(part) for part in ("pixels", *error.errors()[0]["loc"]))
            raise InputError(f"{name} is damaged: {place} of its metadata: {error.errors()[0]['msg']}.") from error
        except (KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
            raise InputError(f"{name} is damaged: of its metadata: {error}.") from error


def _certainty(limits: Limits) -> dict[str, float | None]:
    return {
        "temperature": limits.temperature,
        "abstain_below": limits.abstain_below,
        "ood_threshold": limits.threshold,
    }


def _limits(values: Any) -> Limits:
    temperature, below = float(values["temperature"]), float(values["abstain_below"])
    threshold = None if values["ood_threshold"] is None else float(values["ood_threshold"])
    if not (0 < temperature < math.inf and 0 <= below <= 1 and (threshold is None or math.isfinite(threshold))):
        raise ValueError("a temperature or threshold that none can be")
    return Limits(temperature, below, threshold)


def _classes(values: Any) -> tuple[str, ...]:
    named = isinstance(values, list) and all(isinstance(name, str) for name in values)
    if not named or len(set(values)) != len(values) or not 2 <= len(values) <= MAX_CLASSES:
        raise ValueError("classes that are no different names")
    "".join(values).encode()  # half a letter could never be shown
    return tuple(values)
