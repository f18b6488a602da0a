"""Runs told to a tracking server beside their own folders: MLflow's."""
