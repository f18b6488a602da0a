"""What is said wherever a prediction is shown."""

NOTICE = "Research use only, not a medical device."
