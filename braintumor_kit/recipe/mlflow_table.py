"""The table [mlflow]: where a run is logged beside its own folder, and what of it."""

from typing import Literal

from pydantic import Field

from braintumor_kit.recipe.table import Table

Part = Literal["model", "metrics", "recipe", "figures", "report", "explanations", "predictions"]


class MlflowTable(Table):
    """Log the run to MLflow too (extra [mlflow]): its recipe, the course of training, figures and files."""

    experiment: str = Field("btkit", min_length=1, max_length=250, description="The experiment that runs stand in.")
    tracking_uri: str | None = Field(
        None,
        min_length=1,
        description="A folder, or an address such as http://127.0.0.1:5000; `mlruns` in the folder of runs by default.",
    )
    artifacts: tuple[Part, ...] = Field(
        ("model", "metrics", "recipe", "figures", "report"),
        description="The files that are logged. report.html and the figures show slices; report.html, explanations and "
        "predictions name them and their patients.",
    )
