"""Synthetic contrast-enhanced T1 slices of heads with and without tumours; the `phantom` source is its front.

    randomness.py  independent random streams, smooth random fields
    template.py    the MNI152 brain from nilearn's package data, and the inner table of its skull
    planes.py      where a slice lies: plane, tilt, field of view
    head.py        what surrounds the brain: skull, scalp, face, neck, the skull base
    lesions.py     glioma, meningioma, pituitary adenoma
    patients.py    draws everything that differs from patient to patient and from slice to slice
    painting.py    the ideal picture of a slice and its tumour's mask
    scanner.py     what the scanner makes of it: bias field, blur, noise, display window

Three spaces occur. *Pixels* are (row, column). *Patient* millimetres are the scanner's. *Template*
millimetres are MNI152 coordinates (x to the right, y to the front, z up), in which all anatomy and every
lesion is written down. A patient is a smooth map from patient to template space, evaluated on the points of a
slice only, never on a volume, so that a slice costs 20 ms.
"""
