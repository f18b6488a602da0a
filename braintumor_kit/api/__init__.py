"""btkit in Python: `run` a recipe, `load` a model, `predict` and `explain` with it; notebooks show what comes back."""
