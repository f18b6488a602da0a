"""A table inside the options takes what it does not know."""

from pydantic import BaseModel, Field
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, PluginOptions

BREAKS = "options_refuse_unknown"


class Curve(BaseModel):
    power: float = Field(0.5, description="Exponent of the map.")


class PowerOptions(PluginOptions):
    curve: Curve = Field(Curve(), description="How values of the map are bent.")


class Powered(Explainer[PowerOptions]):
    """Grad-CAM, bent."""

    api_version = 1
    Options = PowerOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu() ** self.options.curve.power
