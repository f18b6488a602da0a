"""Overlays of every map and the sheet `summary.png`, from the folder in the making."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from braintumor_kit.data.pixels import to_display
from braintumor_kit.notice import NOTICE
from braintumor_kit.report.explanations import Example, choose_examples, summary_sheet
from braintumor_kit.report.overlays import save_overlay
from braintumor_kit.workflows.explain import Drawing, Planned
from braintumor_kit.workflows.explanation_folder import ExplanationFolder, Row, Slice
from braintumor_kit.workflows.pictures import Pictures

Scales = Mapping[tuple[str, str], float]
"""By method and patient (or ""), the relevance at the end of a colour scale that several maps share."""


def draw_batch(
    folder: ExplanationFolder, name: str, planned: Sequence[Planned], scales: Scales, drawing: Drawing
) -> None:
    """Draws the overlays of one batch that are not there yet.

    Raises:
        WorkError: where they cannot be written.
    """
    todo = [row for row in folder.batch(name)["rows"] if not (folder.beside / row["overlay"]).is_file()]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        pieces = _with_pictures(todo, planned, drawing)
        list(pool.map(lambda piece: _draw(folder, piece, planned, scales, drawing), pieces))


def draw_summary(folder: ExplanationFolder, planned: Sequence[Planned]) -> None:
    """Draws `summary.png`: examples of each class, correct and wrong apart, methods side by side."""
    slices = folder.slices()
    if not slices:
        return
    firsts = [one.first for one in slices]
    chosen = choose_examples(
        [row["label"] for row in firsts],
        [row["predicted"] for row in firsts],
        [float(row["probability"]) for row in firsts],
    )
    examples = [_example(folder, slices[number], planned) for number in chosen]
    summary_sheet(folder.beside / "summary.png", examples, list(dict.fromkeys(item.method.name for item in planned)))


def scales_of(folder: ExplanationFolder, drawing: Drawing) -> Scales:
    """The ends of the colour scales that several maps share; none where each has its own."""
    scales: dict[tuple[str, str], float] = {}
    if drawing.scale == "image":
        return scales
    for batch in folder.batches():
        for row in batch["rows"]:
            key = _scale_key(row, drawing)
            scales[key] = max(scales.get(key, 0.0), row["scale_end"])
    return scales


def _scale_key(row: Row, drawing: Drawing) -> tuple[str, str]:
    return row["method"], (row["group"] or row["id"]) if drawing.scale == "patient" else ""


def _with_pictures(
    rows: Sequence[Row], planned: Sequence[Planned], drawing: Drawing
) -> Iterator[tuple[Row, NDArray[np.uint8], NDArray[np.bool_] | None]]:
    """Each row with its picture and mask; those are read once for all rows of a slice."""
    for (_, place), same in groupby(rows, lambda row: (id(_pictures(row, planned)), row["place"])):
        some = list(same)
        pictures = _pictures(some[0], planned)
        picture, mask = picture_and_mask(pictures, place, drawing.original_size)
        yield from ((row, picture, mask) for row in some)


def picture_and_mask(
    pictures: Pictures, place: int, original: bool
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """A picture as it is shown, uint8, and its mask on the same grid."""
    if not original:
        return pictures.prepared(place), pictures.mask(place)
    shown = np.rint(to_display(pictures.original(place))).astype(np.uint8)
    return shown, pictures.mask(place, original=True)


def _pictures(row: Row, planned: Sequence[Planned]) -> Pictures:
    return planned[row["plan"]].request.pictures


def _draw(
    folder: ExplanationFolder,
    piece: tuple[Row, NDArray[np.uint8], NDArray[np.bool_] | None],
    planned: Sequence[Planned],
    scales: Scales,
    drawing: Drawing,
) -> None:
    row, picture, mask = piece
    said = f"predicted {row['predicted']}, p = {float(row['probability']):.2f}"
    truth = f"; truth: {row['label']}" if row["label"] else ""
    flags = [f"flags: {row['flags'].replace(' ', ', ')}"] if row["flags"] else []
    save_overlay(
        folder.beside / row["overlay"],
        picture,
        folder.read_map(row["map"]),
        words=(f"{row['method']}: {row['target']}", said + truth, *flags, NOTICE),
        mask=mask,
        top=scales.get(_scale_key(row, drawing)),
        signed=planned[row["plan"]].method.signed,
        style=drawing.style,
    )


def _example(folder: ExplanationFolder, shown: Slice, planned: Sequence[Planned]) -> Example:
    row, rows = shown.first, shown.rows
    maps = {name: folder.read_map(one["map"]) for name, one in rows.items()}
    pictures = _pictures(row, planned)
    original = next(iter(maps.values())).shape != pictures.prepared(row["place"]).shape[:2]
    picture, mask = picture_and_mask(pictures, row["place"], original)
    return Example(
        id=row["id"],
        label=row["label"],
        predicted=row["predicted"],
        probability=float(row["probability"]),
        picture=picture,
        target=row["target"],
        maps=maps,
        mask=mask,
        signed={name for name, one in rows.items() if planned[one["plan"]].method.signed},
        flags={name: one["flags"].split() for name, one in rows.items() if one["flags"]},
    )
