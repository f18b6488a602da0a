"""Checks of what a source promises, on the example that it makes of itself."""

import os
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np

from braintumor_kit.contracts import SPLITS, ImageError, InputError, Sample, Source
from braintumor_kit.contracts import sources as contract
from braintumor_kit.testing.check import BrokenPromiseError, expect, holds_to, in_order
from braintumor_kit.testing.subject import SOME, SourceSubject, pixels_of, without_group

_DAMAGE = bytes(64)
_DAY = 86_400


@holds_to(contract, "has_example")
def has_samples(subject: SourceSubject) -> None:
    with subject.made() as source:
        expect(list(source.samples()), "`samples` of its example yields nothing")


@holds_to(contract, "has_samples")
def ids_unique(subject: SourceSubject) -> None:
    with subject.made() as source:
        counts = Counter(sample.id for sample in source.samples())
    twice = [id for id, count in counts.items() if count > 1]
    expect(not twice, f"the id {twice[:1]} comes {counts[twice[0]] if twice else 0} times")


@holds_to(contract, "has_samples")
def labels_declared(subject: SourceSubject) -> None:
    with subject.made() as source:
        samples, classes = list(source.samples()), tuple(source.classes)
    expect(len(classes) >= 2 and len(set(classes)) == len(classes), f"classes are {classes}")
    for sample in samples:
        expect(sample.label in classes, f"sample {sample.id} has the label {sample.label!r}; classes are {classes}")
        known = sample.split is None or sample.split in SPLITS
        expect(known, f"sample {sample.id} has the split {sample.split!r}")


@holds_to(contract, "has_samples")
def pixels_in_form(subject: SourceSubject) -> None:
    with subject.made() as source:
        for sample in list(source.samples())[:SOME]:
            pixels = source.image(sample)
            saw = f"the picture of {sample.id} is {_form(pixels)}"
            expect(isinstance(pixels, np.ndarray) and pixels.dtype in (np.uint8, np.uint16), saw)
            expect(pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3), saw)
            expect(pixels.size, saw)


def _form(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


@holds_to(contract, "has_samples")
def masks_aligned(subject: SourceSubject) -> None:
    with subject.made() as source:
        for sample in list(source.samples())[:SOME]:
            mask, saw = source.mask(sample), f"sample {sample.id} says has_mask = {sample.has_mask}"
            expect((mask is not None) == sample.has_mask, f"{saw}, and its mask is {_form(mask)}")
            if mask is not None:
                form, shape = _form(mask), np.shape(source.image(sample))[:2]
                aligned = isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == shape
                expect(aligned, f"the mask of {sample.id} is {form}, its picture {shape}")


@holds_to(contract, "has_samples", "pixels_in_form")
def groups_stable(subject: SourceSubject) -> None:
    here, there = subject.listings
    with subject.made() as source:
        anew = {sample.id: sample.group for sample in source.samples()}
    for id, group in (here.groups or {}).items():
        expect(group is None or (isinstance(group, str) and group), f"the group of {id} is {group!r}")
        expect(anew.get(id, group) == group, f"the group of {id} was {group!r}, and then {anew.get(id)!r}")
        elsewhere = (there.groups or {}).get(id, group)
        expect(elsewhere == group, f"the group of {id} is {group!r} here, and {elsewhere!r} in another process")


@holds_to(contract, "has_samples")
def digest_follows_pixels(subject: SourceSubject) -> None:
    first, again, other = (_fingerprints(subject, variant, later) for variant, later in ((0, 0), (0, _DAY), (1, 0)))
    for id, (pixels, fingerprint) in first.items():
        if id in again and again[id][0] == pixels:
            expect(again[id][1] == fingerprint, f"{id}: the same pixels, written a day later, have another fingerprint")
        if id in other and other[id][0] != pixels:
            expect(other[id][1] != fingerprint, f"{id}: other pixels, in variant 1 of the example, and the same digest")
    altered = [id for id, (pixels, _) in first.items() if id not in other or other[id][0] != pixels]
    expect(altered, "`example` of variant 1 has the same pixels as that of variant 0, so nothing can be told")


def _fingerprints(subject: SourceSubject, variant: int, later: int) -> dict[str, tuple[bytes, bytes]]:
    """Of each sample a digest of its pixels, and what the source gives as such; files so many seconds later."""
    with subject.example(variant) as (options, folder):
        for path in _files(folder):
            os.utime(path, (path.stat().st_atime + later, path.stat().st_mtime + later))
        source: Any = subject.plugin(options)
        samples = list(source.samples())[:SOME]
        return {sample.id: (pixels_of(source, sample), source.fingerprint(sample)) for sample in samples}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@holds_to(contract, "has_samples")
def iterates_alike(subject: SourceSubject) -> None:
    with subject.made() as source:
        first, second = ([without_group(sample) for sample in source.samples()] for _ in range(2))
    expect(len(first) == len(second), f"{len(first)} samples at first, {len(second)} when asked again")
    for one, other in zip(first, second, strict=True):
        expect(one == other, f"{one} at first, {other} in its place when asked again")


@holds_to(contract, "has_samples", "pixels_in_form")
def broken_file_reported(subject: SourceSubject) -> None:
    with subject.example() as (_, folder):
        names = [path.relative_to(folder) for path in _files(folder)]
    expect(names, "its example wrote no file; a source without files says reads_files = False")
    reports = {name: _report(subject, name) for name in names}
    told = [report for report in reports.values() if report]
    expect(told, f"none of {', '.join(map(str, names))}, overwritten with zeros, was reported by any sample")
    # One file that holds every picture leaves none to read; files of one picture each leave the others.
    alone = [name for name, report in reports.items() if report == "no sample left"]
    of_samples = told.count("some samples") + len(alone)
    expect(not alone or of_samples == 1, f"{alone[:1]} is damaged, and no other sample can be read any more")


def _report(subject: SourceSubject, name: Path) -> str:
    """What damage of that file does: nothing, "listing" is refused, "some samples" or "no sample left"."""
    with subject.example() as (options, folder):
        ids = [sample.id for sample in _made(subject, options).samples()]
        (folder / name).write_bytes(_DAMAGE)
        source = _made(subject, options)
        try:
            samples = list(source.samples())
            unreadable = dict(source.unreadable())
        except InputError as error:
            expect(name.name in str(error), f"{name} is damaged, and the error does not name it: {error}")
            return "listing"
        except Exception as error:
            raise BrokenPromiseError(f"{name} is damaged: `samples` raised {type(error).__name__}: {error}") from error
        lost = {id for id in ids if id in unreadable or id.rpartition("#")[0] in unreadable}
        strangers = sorted(set(unreadable) - lost - {id.rpartition("#")[0] for id in lost})
        expect(not strangers, f"{name} is damaged: `unreadable` names {strangers}, and samples are {ids}")
        bad = [sample.id for sample in samples if not _is_read(source, sample, name)]
        if not bad and not unreadable:
            return ""
        return "no sample left" if len(ids) == len(bad) + len(lost) else "some samples"


def _made(subject: SourceSubject, options: Any) -> Source[Any]:
    source: Any = subject.plugin(options)
    return cast(Source[Any], source)


def _is_read(source: Source[Any], sample: Sample, name: Path) -> bool:
    try:
        source.image(sample)
        source.mask(sample)
    except ImageError:
        return False
    except Exception as error:
        saw = f"{name} is damaged: reading {sample.id} raised {type(error).__name__}, no ImageError: {error}"
        raise BrokenPromiseError(saw) from error
    return True


@holds_to(contract, "has_samples", "pixels_in_form")
def works_elsewhere(subject: SourceSubject) -> None:
    here, there = subject.listings
    expect(there.error is None, f"another process could not use it: {there.error}")
    for one, other in zip_longest(here.samples, there.samples, fillvalue="nothing more"):
        expect(one == other, f"here {one}; there {other}")


CHECKS = in_order(contract, globals())
