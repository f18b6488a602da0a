"""Takes another plugin's class from a package that has it only once that plugin has been imported."""

import btkit_plugins.explainers
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "loads_alone"
GradCam = btkit_plugins.explainers.gradcam.GradCam


class Rooted(Explainer[NoOptions]):
    """The square root of Grad-CAM."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        return GradCam(self.options).maps(model, images, targets).sqrt()
