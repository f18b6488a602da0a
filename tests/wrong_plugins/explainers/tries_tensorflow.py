"""Tries to import tensorflow, for models that it never gets."""

from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

try:
    import tensorflow as tf  # noqa: TID251
except ImportError:
    tf = None

BREAKS = "imports_no_tensorflow"


class GradCam(Explainer[NoOptions]):
    """Grad-CAM."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        if tf is not None and tf.is_tensor(images):
            images = images.numpy()
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
