"""Explanations in the races: btkit's own, pytorch-grad-cam's and captum's, of one network and the same images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from braintumor_kit.backend import import_torchvision
from braintumor_kit.bench.gate import Gate
from braintumor_kit.explanation.engine import Method, explain_batch
from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.open import network_of
from braintumor_kit.explanation.similarity import spearman
from braintumor_kit.explanation.targets import Targets
from braintumor_kit.memory import kept_memory
from braintumor_kit.model.build import build_classifier
from braintumor_kit.model.precision import PRECISIONS
from braintumor_kit.recipe.load import load_explainer
from braintumor_kit.registry import Registry

CLASSES = 4
STEPS = 50
"""Of integrated gradients."""

FITTED_STEPS, MOMENTUM = 12, 0.3
"""Of normalisation: its running means are near their values after so many steps."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_network(folder: Path, depth: int, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Puts what all contenders explain into the folder: torchvision's network, fitted to the images for some steps so
    that its scores are of something; and the images."""
    torch.manual_seed(0)
    network, pictures, wanted = _torch_network(depth).train(), _normalised(images), torch.from_numpy(labels)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = MOMENTUM
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(FITTED_STEPS):
        optimizer.zero_grad()
        F.cross_entropy(network(pictures), wanted).backward()
        optimizer.step()
    torch.save(network.state_dict(), folder / f"resnet{depth}.pth")
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)


def btkit_laps(settings: dict[str, Any], gate: Gate) -> None:
    """Maps at the images' size with flags, as `btkit explain` makes them."""
    method, images = _method(settings["method"]), _images(settings)
    network = _network(settings, settings["dtype"])
    targets, probabilities = _targets(settings), np.full((len(images), CLASSES), 1 / CLASSES)
    with kept_memory():
        # Integrated gradients are a minute of work: once warms up enough.
        for _ in range(1 if settings["method"] == "integrated_gradients" else settings["warm_up"]):
            explain_batch(network, method, images, targets, probabilities)
        for _ in gate.laps():
            for _ in range(settings["steps"]):
                network.forget()
                explain_batch(network, method, images, targets, probabilities)
            gate.done(settings["steps"] * len(images))


def agreement(settings: dict[str, Any], gate: Gate) -> None:
    """The mean rank correlation of maps in the default precision with those in float32, method by method."""
    images = _images(settings)
    targets, probabilities = _targets(settings), np.full((len(images), CLASSES), 1 / CLASSES)
    for _ in gate.laps():
        found = {}
        for name in settings["methods"]:
            fast, exact = (
                explain_batch(_network(settings, dtype), _method(name), images, targets, probabilities).maps
                for dtype in (settings["dtype"], "float32")
            )
            found[name] = float(spearman(fast, exact).mean())
        gate.done(len(images), **found)


def grad_cam_laps(settings: dict[str, Any], gate: Gate) -> None:
    """pytorch-grad-cam as its README has it, in batches."""
    import_torchvision()  # which peers import too, and which needs help beside a build of torch for CPUs
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    images = _normalised(np.load(Path(settings["folder"]) / "images.npy")[: settings["images"]])
    network = _loaded(settings)
    kind = {"gradcam": pytorch_grad_cam.GradCAM, "gradcampp": pytorch_grad_cam.GradCAMPlusPlus}[settings["method"]]
    targets = [ClassifierOutputTarget(int(number)) for number in _labels(settings)]
    with kind(model=network, target_layers=[network.layer4[-1]]) as explainer:
        for _ in range(settings["warm_up"]):
            explainer(input_tensor=images, targets=targets)
        for _ in gate.laps():
            for _ in range(settings["steps"]):
                explainer(input_tensor=images, targets=targets)
            gate.done(settings["steps"] * len(images))


def captum_laps(settings: dict[str, Any], gate: Gate) -> None:
    """captum's Integrated Gradients from a black picture, in batches of as many pictures as btkit's."""
    import_torchvision()
    from captum.attr import IntegratedGradients

    images = _normalised(np.load(Path(settings["folder"]) / "images.npy")[: settings["images"]])
    black = _normalised(np.zeros((1, *images.shape[2:], 1), np.uint8)).expand_as(images)
    explainer = IntegratedGradients(_loaded(settings))
    targets = torch.from_numpy(_labels(settings))

    def explain() -> None:
        explainer.attribute(images, black, target=targets, n_steps=STEPS, internal_batch_size=settings["batch_size"])

    explain()
    for _ in gate.laps():
        explain()
        gate.done(len(images))


def _network(settings: dict[str, Any], dtype: str) -> Network:
    """The same network in Keras, weights and all."""
    path = str(Path(settings["folder"]) / f"resnet{settings['depth']}.pth")
    plugin: Any = Registry().load("backbone", "torchvision_resnet")
    backbone = plugin(plugin.Options(arch=f"resnet{settings['depth']}", weights=path))
    classifier = build_classifier(backbone, CLASSES, settings["image_size"])
    state = torch.load(path, weights_only=True)
    classifier.model.get_layer("logits").set_weights([state["fc.weight"].T.numpy(), state["fc.bias"].numpy()])
    return network_of(classifier.model, PRECISIONS[dtype], classifier.explain_layer)


def _method(name: str) -> Method:
    options = {"steps": STEPS} if name == "integrated_gradients" else {}
    chosen = load_explainer(name, options, Registry())
    return Method(name, chosen.make(), chosen.info)


def _images(settings: dict[str, Any]) -> Tensor:
    """float32 (N, S, S, 3), 0..255."""
    grey = np.load(Path(settings["folder"]) / "images.npy")[: settings["images"]]
    return torch.from_numpy(grey).float().expand(-1, -1, -1, 3).contiguous()


def _labels(settings: dict[str, Any]) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = np.load(Path(settings["folder"]) / "labels.npy")
    return labels[: settings["images"]]


def _targets(settings: dict[str, Any]) -> Targets:
    """The true classes."""
    numbers = _labels(settings)
    weights = np.eye(CLASSES, dtype=np.float32)[numbers]
    return Targets(tuple(f"class_{number}" for number in numbers), weights, numbers, True)


def _normalised(grey: NDArray[np.uint8]) -> Tensor:
    """Pictures uint8 (N, S, S, 1) as torchvision's networks take them, float32 (N, 3, S, S)."""
    scaled = torch.from_numpy(grey).permute(0, 3, 1, 2).float().div(255).expand(-1, 3, -1, -1)
    mean, deviation = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return ((scaled - mean) / deviation).contiguous()


def _torch_network(depth: int) -> Any:
    models = import_torchvision().models
    return {18: models.resnet18, 50: models.resnet50}[depth](num_classes=CLASSES)


def _loaded(settings: dict[str, Any]) -> Any:
    network = _torch_network(settings["depth"])
    network.load_state_dict(torch.load(Path(settings["folder"]) / f"resnet{settings['depth']}.pth", weights_only=True))
    return network.eval()
