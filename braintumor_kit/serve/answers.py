"""The forms of what the API answers."""

from pydantic import BaseModel, Field


class Model(BaseModel):
    """What is served."""

    name: str = Field(description="Of the run or file.")
    classes: list[str]
    methods: list[str] = Field(description="Of explanation.")
    targets: list[str] = Field(description="What a map can explain, beside CLASS-vs-CLASS.")
    image_size: list[int] = Field(description="Height and width of what the network sees, in pixels.")
    calibrated: bool = Field(description="Whether answers come with calibrated probabilities and flags.")
    warning: str | None = Field(description="What the run's figures have to be read with.")
    upload_bytes: int = Field(description="Of the largest picture that is taken.")
    notice: str
    version: str = Field(description="Of btkit.")


class Answer(BaseModel):
    """What the model says of one picture; what nobody can tell of a model is null."""

    predicted: str
    probabilities: dict[str, float] = Field(description="As the network gives them.")
    calibrated: dict[str, float] | None
    out_of_distribution: bool | None = Field(description="Whether the picture is unlike the training slices.")
    ood_score: float | None
    abstain: bool | None = Field(description="Whether no class is likely enough to be answered.")
    caution: str | None = Field(description="In words, what speaks against using the answer.")
    notice: str
    slice_number: int | None = Field(None, description="Of a volume: which slice this is of, from 1.")
    slices: int | None = Field(None, description="Of a volume: how many it has.")
    note: str | None = Field(None, description="What else is to be known of the upload.")


class Peak(BaseModel):
    """The slice of a volume on which a class is likeliest."""

    slice: int
    probability: float


class VolumeAnswer(Answer):
    """What the slices of a volume come to: means over those that are not flagged as unlike the training."""

    slices_used: int = Field(description="Of which the means are taken.")
    peaks: dict[str, Peak] = Field(description="By class.")


class Explanation(Answer):
    """The same with a map of where the network looks."""

    method: str
    target: str = Field(description="What the map explains.")
    layer: str | None = Field(description="The layer that the method looked at.")
    signed: bool = Field(description="Whether negative values of the map are evidence against the target.")
    flags: dict[str, str] = Field(description="What is odd about the map, each in words.")
    peak: float = Field(description="The largest absolute value of the map.")
    map: str = Field(description="Raw relevance, float32 (H, W), a NumPy .npy file in base64.")
    slice: str = Field(description="The picture as the network sees it, PNG as a data URL.")
    layer_picture: str = Field(description="The map in colours, transparent where it says nothing, PNG as a data URL.")


class Refused(BaseModel):
    """Why a request was not answered."""

    error: str
