"""An option of a table inside the options has no description."""

from pydantic import BaseModel, Field
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, PluginOptions

BREAKS = "options_described"


class Curve(BaseModel, extra="forbid"):
    power: float = 0.5


class PowerOptions(PluginOptions):
    curve: Curve = Field(Curve(), description="How values of the map are bent.")


class Powered(Explainer[PowerOptions]):
    """Grad-CAM, bent."""

    api_version = 1
    Options = PowerOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu() ** self.options.curve.power
