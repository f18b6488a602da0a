"""Built-in backbones, one plugin a file."""
