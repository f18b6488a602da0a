"""What btkit is compared with: torch tuned by hand, torch as notebooks have it, and keras-hub as it comes."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from braintumor_kit.backend import import_torchvision
from braintumor_kit.bench.gate import Gate
from braintumor_kit.bench.laps import LapsOfFit
from braintumor_kit.memory import kept_memory

CLASSES = 4
POOL = 8
"""Different batches that the loops with slices in memory go round."""


def torch_fit(settings: dict[str, Any], gate: Gate) -> None:
    """torchvision's network in the loop that a careful engineer writes: uint8 slices in memory, channels_last, bfloat16
    by autocast, fused Adam, no augmentation. With `kept_memory` glibc keeps freed blocks, as btkit has it do."""
    with ExitStack() as stack:
        if settings.get("kept_memory"):
            stack.enter_context(kept_memory())
        device = _device()
        model = _network(settings, device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
        slices, labels = _slices(settings, device)
        bfloat16 = settings["dtype"] == "bfloat16"

        def step(number: int) -> None:
            optimizer.zero_grad(set_to_none=True)
            pictures = _pictures(slices[number % POOL])
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
                logits = model(pictures)
            F.cross_entropy(logits.float(), labels[number % POOL]).backward()
            optimizer.step()

        _run(settings, gate, step, device)


def torch_inference(settings: dict[str, Any], gate: Gate) -> None:
    """torchvision's network in evaluation mode, channels_last, bfloat16 by autocast."""
    device = _device()
    model = _network(settings, device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    slices, _ = _slices(settings, device)
    bfloat16 = settings["dtype"] == "bfloat16"

    def step(number: int) -> None:
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
            model(_pictures(slices[number % POOL])).float().softmax(dim=1).cpu()

    _run(settings, gate, step, device)


def reference_fit(settings: dict[str, Any], gate: Gate) -> None:
    """The loop of the notebooks: torchvision's ImageFolder and transforms, which decode every file in every epoch, a
    DataLoader as it comes, float32, Adam."""
    import_torchvision()
    from torchvision import datasets, transforms

    size = settings["image_size"]
    prepare = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(10),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    files = datasets.ImageFolder(Path(settings["folder"]), prepare)
    loader = torch.utils.data.DataLoader(files, settings["batch_size"], shuffle=True, drop_last=True)
    device = _device()
    model = _network(settings, device).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    batches = iter(loader)

    def step(number: int) -> None:
        nonlocal batches
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        pictures, labels = (value.to(device) for value in batch)
        optimizer.zero_grad()
        F.cross_entropy(model(pictures), labels).backward()
        optimizer.step()

    _run(settings, gate, step, device)


def keras_hub_fit(settings: dict[str, Any], gate: Gate) -> None:
    """keras-hub's network with Keras' fit as it comes, slices in memory as float32 colour pictures."""
    import keras_hub

    if settings["dtype"] == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    size, batch = settings["image_size"], settings["batch_size"]
    deep = settings["depth"] == 50
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3] if deep else [2, 2, 2, 2],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block" if deep else "basic_block",
        image_shape=(size, size, 3),
    )
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    model = keras.Model(backbone.input, keras.layers.Dense(CLASSES, dtype="float32")(pooled))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss=loss, metrics=["accuracy"])
    random = np.random.default_rng(0)
    pictures = random.random((POOL * batch, size, size, 3), np.float32)
    labels = random.integers(0, CLASSES, POOL * batch)
    model.fit(pictures, labels, batch_size=batch, epochs=10**6, verbose=0, callbacks=[LapsOfFit(settings, gate)])


def _run(settings: dict[str, Any], gate: Gate, step: Any, device: torch.device) -> None:
    for number in range(settings["warm_up"]):
        step(number)
    for _ in gate.laps():
        for number in range(settings["steps"]):
            step(number)
        if device.type == "cuda":
            torch.cuda.synchronize()
        gate.done(settings["steps"] * settings["batch_size"])


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _network(settings: dict[str, Any], device: torch.device) -> torch.nn.Module:
    models = import_torchvision().models
    build = {18: models.resnet18, 50: models.resnet50}[settings["depth"]]
    network: torch.nn.Module = build(num_classes=CLASSES).to(device)
    return network


def _slices(settings: dict[str, Any], device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    size, batch = settings["image_size"], settings["batch_size"]
    random = torch.Generator().manual_seed(0)
    slices = torch.randint(0, 256, (POOL, batch, 1, size, size), dtype=torch.uint8, generator=random).to(device)
    labels = torch.randint(0, CLASSES, (POOL, batch), generator=random).to(device)
    return list(slices), list(labels)


def _pictures(slices: Tensor) -> Tensor:
    """Grey slices (N, 1, S, S) as three normalised colours in channels_last memory."""
    scaled = slices.float().sub_(120.0).div_(58.0)
    return scaled.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
