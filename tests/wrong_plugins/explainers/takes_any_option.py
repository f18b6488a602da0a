"""Options that it does not have are passed over."""

from pydantic import ConfigDict, Field
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, PluginOptions

BREAKS = "options_refuse_unknown"


class PowerOptions(PluginOptions):
    model_config = ConfigDict(extra="ignore")

    power: float = Field(0.5, gt=0, description="The power that values of the map are raised to.")


class Powered(Explainer[PowerOptions]):
    """Grad-CAM, raised to a power."""

    api_version = 1
    Options = PowerOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu() ** self.options.power
