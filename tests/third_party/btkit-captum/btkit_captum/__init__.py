"""captum's methods as explainers of btkit."""
