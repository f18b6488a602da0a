"""Built-in sources, one plugin a file."""
