"""What is wrong with a data set and its split: each module answers one question from samples, survey and copies.

subject.py      what is looked at: samples, their records, copies, patients, splits
leaks.py        copies and patients on both sides of a split; labels that contradict each other
strangers.py    pictures that are not of the data set's kind
balance.py      what differs between splits
collections.py  which collections the pictures seem to come from
probes.py       how far shortcuts alone go
standing.py     how much of a run's accuracy stands on leaked samples
tables.py       the findings as tables to read
failings.py     which kinds of fault were found
"""
