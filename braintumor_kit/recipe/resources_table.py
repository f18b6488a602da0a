"""The table [resources]: what one training of several is given."""

from pydantic import Field

from braintumor_kit.recipe.table import Table


class ResourcesTable(Table):
    """What one training is given: a fold, or a trial of a sweep. So many run at a time as there is room for."""

    cpus: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Cores, and so threads, by default all of this machine. With fewer, several folds or trials "
        "are trained at a time; several workers of one training have at most so many each. The number of threads that "
        "share a sum decides its last digits.",
    )
    gpus: float | None = Field(
        None,
        ge=0,
        le=64,
        description="With --engine ray: GPUs, or a part of one that several share; by default one where this machine "
        "trains on a GPU, else none.",
    )
