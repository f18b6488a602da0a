"""Recipes: what a key may be (tables), how files, bases and `--set` are laid over each other (layers), and the
checked whole (load). Every fault of a recipe is found and reported at once (problems)."""
