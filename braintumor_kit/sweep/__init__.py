"""The trials of a sweep: which values of a recipe's keys each tries, and when one is better stopped."""
