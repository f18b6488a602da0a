"""Validation makes a share of per cent, each time that options are read."""

from pydantic import Field, field_validator
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, PluginOptions

BREAKS = "options_survive_toml"


class PowerOptions(PluginOptions):
    floor: float = Field(5, validate_default=True, description="Per cent of the largest value that are left out.")

    @field_validator("floor")
    @classmethod
    def as_share(cls, floor: float) -> float:
        return floor / 100


class Powered(Explainer[PowerOptions]):
    """Grad-CAM above a floor."""

    api_version = 1
    Options = PowerOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        cam = (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
        return (cam - self.options.floor * cam.amax(dim=(1, 2), keepdim=True)).relu()
