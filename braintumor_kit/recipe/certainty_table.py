"""The table [certainty]: when an answer is flagged."""

from pydantic import Field

from braintumor_kit.recipe.table import Table


class CertaintyTable(Table):
    """When an answer is flagged; both are settled on validation, after training."""

    false_alarms: float = Field(
        0.05, gt=0, lt=0.5, description="Share of validation slices that may be flagged as unlike the training."
    )
    abstain: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Share of validation slices, the least sure ones, that set the calibrated probability below which "
        "no answer is advised.",
    )
