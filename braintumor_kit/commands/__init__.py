"""Words typed by the user, each turned into a call of a workflow, which is imported only then."""
