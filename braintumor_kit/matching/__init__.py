"""Which pictures show the same slice, however they were mirrored, turned, resized, recompressed, brightened or cropped.

fingerprint.py   a picture's low frequencies, and what they become when it is mirrored, turned or cropped
candidates.py    pairs of alike fingerprints: all pairs of small sets, an index for large ones
alignment.py     whether a pair is one picture: brought to lie on each other, and compared
copies.py        the three together: identical sets, near-duplicate pairs, connected components
patients.py      an index of fingerprints with patients, against which other collections are matched
"""
