"""Built-in explainers, one plugin a file."""
