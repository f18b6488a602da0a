"""Tools for authors of sources, and for btkit itself: slices out of DICOM series and NIfTI volumes.

volume.py   what every volume gives: slices in order, as they are shown
nifti.py    a NIfTI file, in the plane that is asked for
dicom.py    one frame of a DICOM file, from stored values to what a viewer shows
series.py   DICOM files, sorted into series, each in order of position
labels.py   the class of a scan: its folder, or a table
slices.py   which slices of a volume become samples
"""
