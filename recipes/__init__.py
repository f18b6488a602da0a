"""The recipes that ship with btkit; `btkit run NAME` finds them by name where no checkout is at hand."""
