"""The tables of a recipe as frozen records: every key, its type, its default and what it means.

This is the one place where a recipe's keys are defined. `btkit recipe schema` prints it, `recipe check` holds
recipes to it, and everything below the recipe takes these records as its settings. Options of plugins are the
plugins' own and are checked against the plugins' own models.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from braintumor_kit.recipe.certainty_table import CertaintyTable
from braintumor_kit.recipe.mlflow_table import MlflowTable
from braintumor_kit.recipe.resources_table import ResourcesTable
from braintumor_kit.recipe.sweep_table import SweepTable
from braintumor_kit.recipe.table import OpenTable, Table

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class PluginTable(OpenTable):
    """A table that names a plugin by `name`."""

    name: str = Field(description="The plugin; `btkit plugins list` shows them.")


class SourceTable(PluginTable):
    """Where the slices come from."""

    on_bad_image: Literal["error", "skip"] = Field(
        "error",
        description="What to do about pictures that cannot be read: stop and name them, or leave them out and "
        "record them.",
    )
    recover_patients: bool = Field(
        False,
        description="Find slices without a patient in an index of slices whose patients are known, mirrored or not, "
        "and give them those patients.",
    )
    patient_index: Path | None = Field(
        None,
        description="The index, made by `btkit data index`; btkit's own, of figshare's slices, by default. Splits that "
        "keep copies together look patients up in it, too.",
    )


class PixelsTable(Table):
    """How any picture becomes the network's grey (or colour) square of 0..255."""

    image_size: int = Field(224, ge=32, le=1024, description="Side of the square, in pixels.")
    fit: Literal["stretch", "pad"] = Field(
        "stretch",
        description="Stretch to the square as the reference pipeline does, or keep the shape and pad with black.",
    )
    colour: Literal["grey", "rgb"] = Field(
        "grey",
        description="Turn colour to grey by luminance (repeated to the network's channels), or keep it.",
    )
    crop: Literal["none", "head"] = Field(
        "none",
        description='"head" cuts to the bounding box of the head, which hides how a collection was framed.',
    )
    crop_margin: Fraction = Field(
        0.05, description='Margin around the head for crop = "head", as a fraction of the box\'s longer side.'
    )
    intensity: Literal["full", "percentile"] = Field(
        "full",
        description='"percentile" stretches the head\'s 1st to 99th percentile to 0..255, which hides how a '
        "collection was exposed.",
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a prepared slice, (S, S, C)."""
        return self.image_size, self.image_size, 3 if self.colour == "rgb" else 1


UNMATCHED = "unmatched"
"""What `hold_out` says for slices without a patient; every other word is the name of a collection."""


class SplitTable(Table):
    """How train, validation and test are made. Validation selects the model; test is only reported."""

    method: Literal["source", "grouped", "stratified", "deduplicated", "kfold"] = Field(
        "source",
        description='"source": as the source comes divided; "grouped": patients stay together, classes balanced; '
        '"stratified": slice by slice, classes balanced (slices of one patient may stand on both sides); '
        '"deduplicated": like grouped, and copies of a picture stay together too, however they were mirrored, turned, '
        'resized, recompressed, brightened or cropped; "kfold": every patient is tested once, by the model of one of '
        "several folds that did not train on any of its slices.",
    )
    validation: Share = Field(
        0.15,
        description="Share that becomes validation. With method = source it is taken from the source's training "
        "part, patients together where they are known, and only if the source has no validation part; with kfold "
        "from what a fold does not test.",
    )
    test: Share | None = Field(
        None,
        description="Share that becomes test, 0.15 by default; not with method = source, which has its own. With "
        "kfold it is set aside: there every slice is tested once.",
    )
    folds: int | None = Field(None, ge=2, le=100, description="With method = kfold: how many, 5 by default.")
    fold: int | None = Field(
        None,
        ge=1,
        description="With method = kfold: train and test that one of the folds alone, as one training; settings may be "
        "chosen on its validation part.",
    )
    keep_together: Literal["patients", "copies", "nothing"] | None = Field(
        None,
        description='With method = kfold: what is never divided. "patients" by default; "copies" are copies of a '
        'picture and patients; "nothing" deals slice by slice, to show what that flatters.',
    )
    source_test_as: Literal["test", "validation"] = Field(
        "test",
        description='With method = source: what the source\'s test part is used as. "validation" is the reference '
        "pipeline's habit: it selects the model on that part, and no test split is left.",
    )
    mixed_patients: Literal["error", "allow"] = Field(
        "error",
        description="What to do about patients whose slices have several labels: stop and name them, or let each "
        "count for its commonest label.",
    )
    hold_out: str | None = Field(
        None,
        description="A collection whose slices stand in no split and are judged apart, as another hospital's would be: "
        '"unmatched", slices without a patient of classes whose patients are mostly known, or a name that '
        "`collections` has.",
    )
    collections: Path | None = Field(
        None, description="A table with the columns id and collection, such as the collections.csv of `btkit audit`."
    )
    allow_leaks: bool = Field(
        False,
        description="Go on where identical pictures or slices of one patient stand on both sides of the split, and "
        "say so in every output; otherwise the run stops.",
    )
    seed: int | None = Field(None, ge=0, description="Seed of the split alone; the recipe's seed by default.")
    validation_seed: int | None = Field(
        None,
        ge=0,
        description="Seed of what validates, the test part left as it is; the split's seed by default. With one each, "
        "several networks see all patients of a training part between them.",
    )

    @property
    def cross_validates(self) -> bool:
        """Whether several folds are trained, each as a run of its own."""
        return self.method == "kfold" and self.fold is None

    @property
    def together(self) -> Literal["patients", "copies", "nothing"]:
        """What the method never divides."""
        if self.keep_together is not None:
            return self.keep_together
        if self.method == "deduplicated":
            return "copies"
        return "nothing" if self.method == "stratified" else "patients"

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        if self.method not in ("source", "kfold") and self.test is None:
            object.__setattr__(self, "test", 0.15)  # frozen from here on
        if self.method == "kfold":
            object.__setattr__(self, "test", None)
            object.__setattr__(self, "folds", self.folds or 5)
        return self


class AugmentTable(Table):
    """Random changes to training pictures, drawn anew each epoch; off for validation and test."""

    flip_horizontal: bool = Field(False, description="Mirror left to right with probability one half.")
    flip_vertical: bool = Field(False, description="Mirror top to bottom with probability one half.")
    rotate: float = Field(0, ge=0, le=180, description="Rotate by up to that many degrees either way.")
    shift: float = Field(0, ge=0, le=0.5, description="Shift by up to that fraction of the side, each axis.")
    scale: float = Field(0, ge=0, lt=0.9, description="Scale by a factor in 1 - scale .. 1 + scale.")
    brightness: Fraction = Field(0, description="Add up to that fraction of the full range either way.")
    contrast: float = Field(0, ge=0, lt=1, description="Scale intensities by 1 - contrast .. 1 + contrast.")
    gamma: float = Field(0, ge=0, lt=1, description="Raise intensities to a power in 1 - gamma .. 1 + gamma.")
    remap: float = Field(
        0,
        ge=0,
        lt=1,
        description="Pass grey levels through a random rising curve whose slope varies by up to that share: hides how "
        "a collection was exposed. Framing is hidden by shift and scale.",
    )
    rim: float = Field(
        0,
        ge=0,
        lt=1,
        description="Brighten or darken the rim of the head, skull and scalp, by up to that share: hides how a "
        "collection shows them.",
    )
    noise: Fraction = Field(0, description="Gaussian noise of a deviation up to that fraction of the range.")


class BackboneTable(PluginTable):
    """The convolutional trunk."""


class ScheduleTable(Table):
    """How the learning rate moves within a phase of training."""

    name: Literal["constant", "step", "cosine", "one_cycle"] = Field(
        "constant",
        description="one_cycle rises to the learning rate and falls below its start (Smith and Topin 2018).",
    )
    warmup_epochs: float = Field(0, ge=0, description="Rise linearly from zero over that many epochs.")
    step_epochs: int = Field(10, ge=1, description="step: epochs between two drops.")
    factor: Share = Field(0.1, description="step: what the rate is multiplied by at a drop.")
    final_fraction: Fraction = Field(0.0, description="cosine, one_cycle: the last rate over the highest.")


class PhaseTable(Table):
    """One phase of training; what it leaves out is taken from [training]."""

    epochs: int = Field(ge=1, le=100_000, description="Epochs of this phase.")
    trainable: str | None = Field(None, description='What is trained: "all", "head" or a stage of the backbone.')
    learning_rate: float | None = Field(None, gt=0, description="Learning rate of this phase.")
    schedule: ScheduleTable | None = Field(None, description="Schedule of this phase.")


class TrainingTable(Table):
    """How the network is fitted."""

    epochs: int | None = Field(
        None, ge=1, le=100_000, description="Epochs, 30 by default; not beside phases, which have their own."
    )
    batch_size: int = Field(32, ge=1, le=4096, description="Slices a step, of each worker.")
    workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="Processes that train one network together (data-parallel), each on batch_size slices of every "
        "step: on this machine, on a cluster with --engine ray, or under torchrun.",
    )
    scale_learning_rate: Literal["none", "linear", "sqrt"] = Field(
        "none",
        description="Multiply learning rates by the number of workers, as steps of so many times the slices may want "
        "(Goyal et al. 2017), or by its root.",
    )
    sync_batch_norm: bool = Field(
        False,
        description="With several workers: normalise by the statistics of the whole step, at the cost of two messages "
        "a layer; otherwise each worker normalises its own part.",
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="SGD is with Nesterov momentum 0.9.")
    learning_rate: float = Field(1e-4, gt=0, description="Learning rate, the highest where a schedule moves it.")
    weight_decay: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Decoupled weight decay, of kernels alone: not of biases or normalisation.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of each target spread over all classes.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description='"balanced" weighs each slice by the inverse of its class\'s frequency.'
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout rate before the classifying layer.")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Momentum of a moving average of the weights, which is then what is kept; 0 is off.",
    )
    mask_weight: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Of a second term of the loss that asks the evidence for a slice's class to lie on its tumour, "
        "where the source has a mask of it; 0 is off. The loss of training has it in, that of validation has not.",
    )
    trainable: str = Field(
        "all",
        description='What is trained: "all", "head", or a stage of the backbone and all that follows it.',
    )
    feature_views: int = Field(
        4,
        ge=0,
        le=1000,
        description="What comes before the first trained layer is computed once for that many augmented views of each "
        "slice, which the epochs of the phase go through in turn (one view where nothing is augmented); 0 computes it "
        "in every step.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Of convolutions in training; auto is bfloat16 where the device computes it natively.",
    )
    compile: Literal["auto"] | bool = Field(
        "auto",
        description="torch.compile; auto tries it on a GPU, in trainings of some length by one worker, and keeps the "
        "faster way.",
    )
    schedule: ScheduleTable = Field(default_factory=ScheduleTable, description="Course of the learning rate.")
    phases: tuple[PhaseTable, ...] = Field((), description="Phases one after the other, such as head, then all.")
    select: Literal["val_accuracy", "val_loss"] = Field(
        "val_accuracy", description="What picks the best epoch's weights, on validation."
    )
    on_out_of_memory: Literal["stop", "halve"] = Field(
        "stop",
        description='"stop" says which batch size fits; "halve" goes on from the last checkpoint with half as many '
        "slices a step, as often as needed.",
    )
    checkpoint_seconds: float | None = Field(
        None,
        ge=0,
        description="Between two checkpoints inside an epoch, 0 after every step; by default at least 20, and so long "
        "that checkpoints take a twentieth of the time. There is always one after an epoch.",
    )

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        if not self.phases and self.epochs is None:
            object.__setattr__(self, "epochs", 30)  # frozen from here on
        return self

    @property
    def rate_factor(self) -> float:
        """What learning rates are multiplied by."""
        return {"none": 1.0, "linear": float(self.workers), "sqrt": self.workers**0.5}[self.scale_learning_rate]


class ReduceLROnPlateauTable(Table):
    """Lower the learning rate when validation stops improving (Keras' ReduceLROnPlateau)."""

    monitor: Literal["val_loss", "val_accuracy", "loss", "accuracy"] = Field("val_loss", description="What to watch.")
    factor: Share = Field(0.5, description="What the rate is multiplied by.")
    patience: int = Field(2, ge=0, description="Epochs without improvement before it acts.")
    min_delta: float = Field(1e-4, ge=0, description="The least change that counts as improvement.")
    cooldown: int = Field(0, ge=0, description="Epochs to wait after it acted.")
    min_lr: float = Field(0.0, ge=0, description="The rate never falls below this.")


class EarlyStoppingTable(Table):
    """Stop when validation has stopped improving (Keras' EarlyStopping)."""

    monitor: Literal["val_loss", "val_accuracy"] = Field("val_loss", description="What to watch.")
    patience: int = Field(10, ge=1, description="Epochs without improvement before it stops.")
    min_delta: float = Field(0.0, ge=0, description="The least change that counts as improvement.")


class TensorBoardTable(Table):
    """Write the curves for TensorBoard too, into `tensorboard/` of the run (extra [tensorboard])."""


class CallbacksTable(Table):
    """What acts at the end of an epoch."""

    reduce_lr_on_plateau: ReduceLROnPlateauTable | None = Field(None, description="Lower the rate on a plateau.")
    early_stopping: EarlyStoppingTable | None = Field(None, description="Stop on a plateau.")
    tensorboard: TensorBoardTable | None = Field(None, description="Log for TensorBoard.")


class ExplainTable(OpenTable):
    """One method of explanation, carried out at the end of the run."""

    method: str = Field(description="The explainer; `btkit plugins list` shows them.")
    target: str = Field(
        "predicted",
        description='What is explained: "predicted" or "label", a class, two as "glioma-vs-meningioma", or "all".',
    )
    split: Literal["train", "validation", "test"] | None = Field(
        None, description="Whose slices; test by default, validation where a protocol has no test."
    )
    limit: int | None = Field(None, ge=1, description="At most so many slices, evenly spaced over the split.")
    layer: str | None = Field(None, description="The layer that is looked at; the backbone's own by default.")


class RecipeTable(Table):
    """A recipe: one run, declared completely."""

    seed: int = Field(0, ge=0, lt=2**32, description="Every random draw of the run follows from it.")
    source: SourceTable = Field(description="Where the slices come from.")
    pixels: PixelsTable = Field(default_factory=PixelsTable, description="How pictures are prepared.")
    split: SplitTable = Field(default_factory=SplitTable, description="Train, validation and test.")
    augment: AugmentTable = Field(default_factory=AugmentTable, description="Random changes in training.")
    backbone: BackboneTable = Field(description="The convolutional trunk.")
    training: TrainingTable = Field(default_factory=TrainingTable, description="How the network is fitted.")
    callbacks: CallbacksTable = Field(default_factory=CallbacksTable, description="What acts between epochs.")
    mlflow: MlflowTable | None = Field(None, description="Log the run to MLflow too.")
    certainty: CertaintyTable = Field(default_factory=CertaintyTable, description="When an answer is flagged.")
    resources: ResourcesTable = Field(
        default_factory=ResourcesTable, description="What one training of several is given."
    )
    explain: tuple[ExplainTable, ...] = Field((), description="Explanations at the end of the run, one table a method.")
    sweep: SweepTable | None = Field(None, description="Train with other values too, and choose on validation.")
    report: bool = Field(
        True, description="Whether the run ends with report.html, model_card.md and maps of its worst mistakes."
    )
