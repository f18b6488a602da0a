"""What predictions are worth: figures with intervals, from labels and probabilities alone."""
