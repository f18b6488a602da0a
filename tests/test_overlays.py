"""What is drawn of a map: colours, outlines and lines where they belong, and never a letter over the brain."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from braintumor_kit.report.explanations import Example, choose_examples, summary_sheet
from braintumor_kit.report.overlays import (
    LEVELS,
    OPACITY,
    OUTLINE,
    OUTLINE_EDGE,
    RISE,
    STYLES,
    heat,
    layout,
    overlay,
    palette,
    save_overlay,
    scale_end,
    shortened,
)

SIDE = 64
FACTOR = 7  # 448 / 64
GREY = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)
NOTHING = np.zeros((SIDE, SIDE), np.float32)
ODD = ("<script>alert('x')</script>\n\tB", "\x00\ud800\u202e脳腫瘍 \U0001f9e0 $x^2$", "", "word " * 10_000)


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        yield


def brain_of(drawn: Image.Image, lines: int = 0, shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """The part of an overlay where the slice stands, uint8 (H, W, 3)."""
    place = layout(*shape, lines)
    return np.asarray(drawn)[place.top : place.top + place.height, place.left : place.left + place.width]


def enlarged(picture: np.ndarray, factor: int = FACTOR) -> np.ndarray:
    colour = picture if picture.ndim == 3 and picture.shape[2] == 3 else np.repeat(picture.reshape(SIDE, SIDE, 1), 3, 2)
    return colour.repeat(factor, axis=0).repeat(factor, axis=1)


def radial(reach: float = 28.0) -> np.ndarray:
    """1 at the middle of the slice, falling evenly to 0 at `reach` pixels from it."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - 31.5
    return np.maximum(0, 1 - np.hypot(rows, columns) / reach).astype(np.float32)


# Heat


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE, SIDE, 1), (SIDE, SIDE, 3)])
def test_no_relevance_leaves_pixels_as_they_are(shape: tuple[int, ...], signed: bool) -> None:
    picture = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    relevance = NOTHING.copy()
    relevance[20:30, 20:30] = 3
    untouched = enlarged((relevance == 0)[..., np.newaxis])
    drawn = brain_of(overlay(picture, relevance, signed=signed))
    np.testing.assert_array_equal(drawn[untouched], enlarged(picture)[untouched])
    assert (drawn != enlarged(picture))[~untouched].any()


def test_most_relevance_gets_the_end_of_the_colour_map() -> None:
    picture = np.full((SIDE, SIDE), 100, np.uint8)
    relevance = NOTHING.copy()
    relevance[5, 9], relevance[7, 7] = 0.004, 0.002
    drawn = brain_of(overlay(picture, relevance))
    end = np.array([252, 255, 164])  # of inferno, #fcffa4
    np.testing.assert_allclose(drawn[5 * FACTOR, 9 * FACTOR], 0.25 * 100 + 0.75 * end, atol=0.51)
    half = np.array(matplotlib.colormaps["inferno"](0.625)[:3]) * 255  # the part from 0.25 to 1 is used
    cover = 0.75 * 0.5**0.7
    np.testing.assert_allclose(drawn[7 * FACTOR, 7 * FACTOR], (1 - cover) * 100 + cover * half, atol=0.51)
    assert (OPACITY, RISE) == (0.75, 0.7)


def test_signed_maps_show_both_signs_and_unsigned_ones_only_what_is_for() -> None:
    picture = np.full((SIDE, SIDE), 100, np.uint8)
    relevance = NOTHING.copy()
    relevance[0, 0], relevance[0, 1], relevance[0, 2] = 2, -2, -1
    drawn = brain_of(overlay(picture, relevance, signed=True))[0, ::FACTOR].astype(int)
    assert drawn[0][0] > drawn[0][2] + 40, "orange"
    assert drawn[1][2] > drawn[1][0] + 20, "blue"
    assert np.abs(drawn[1] - 100).sum() != np.abs(drawn[2] - 100).sum()
    drawn = brain_of(overlay(picture, relevance))[0, ::FACTOR]
    assert (drawn[1:] == 100).all()


def test_colours_become_lighter_with_relevance() -> None:
    light = palette(False).colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > -0.8).all(), "to the rounding of 8 bits"
    assert light[-1] > light[0] + 180
    for side in (palette(True).colours[128:], palette(True).colours[126::-1]):
        light = side @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(light) > -0.8).all()
        assert light[-1] > light[0] + 50


def test_a_shared_top_makes_a_weak_map_weaker() -> None:
    picture = np.zeros((SIDE, SIDE), np.uint8)
    own = brain_of(overlay(picture, radial() * 0.1))
    shared = brain_of(overlay(picture, radial() * 0.1, top=1.0))
    np.testing.assert_array_equal(own, brain_of(overlay(picture, radial())))
    assert shared.max() < own.max() / 2
    beyond = heat(picture, radial() * 9, 1.0, False)
    np.testing.assert_array_equal(beyond[31, 31], heat(picture, radial() * 0 + 1, 1.0, False)[31, 31])


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("top", [None, 0.0, -1.0, np.nan, np.inf])
def test_a_map_that_says_nothing_is_the_plain_slice(top: float | None, style: str) -> None:
    relevance = NOTHING if top is None else radial()
    np.testing.assert_array_equal(brain_of(overlay(GREY, relevance, top=top, style=style)), enlarged(GREY))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e38])
def test_extreme_and_broken_values_are_drawn(scale: float, style: str) -> None:
    relevance = (radial() > 0.5).astype(np.float32) * np.float32(scale)
    relevance[0, :3] = np.nan, np.inf, -np.inf
    drawn = brain_of(overlay(GREY, relevance, style=style, signed=scale > 1))
    np.testing.assert_array_equal(drawn[:FACTOR], enlarged(GREY)[:FACTOR])
    assert (drawn != enlarged(GREY)).any()


# Lines


def test_the_outline_is_the_boundary_of_the_mask() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10:20, 30:50] = True
    drawn = brain_of(overlay(GREY, NOTHING, mask=mask))
    large = enlarged(mask)[..., 0]
    inside = np.zeros_like(large)
    inside[71:139, 211:349] = True  # rows 70..139 and columns 210..349 less their frame
    touching = np.zeros_like(large)
    touching[69:141, 210:350] = touching[70:140, 209:351] = True
    assert (drawn[large & ~inside] == OUTLINE).all()
    np.testing.assert_array_equal(drawn[inside], enlarged(GREY)[inside])
    assert (drawn[touching & ~large] == OUTLINE_EDGE).all()
    np.testing.assert_array_equal(drawn[~touching], enlarged(GREY)[~touching])


def test_a_mask_at_the_rim_is_closed_and_an_empty_one_draws_nothing() -> None:
    drawn = brain_of(overlay(GREY, NOTHING, mask=np.ones((SIDE, SIDE), bool)))
    for rim in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert (rim == OUTLINE).all()
    np.testing.assert_array_equal(drawn[1:-1, 1:-1], enlarged(GREY)[1:-1, 1:-1])
    np.testing.assert_array_equal(brain_of(overlay(GREY, NOTHING, mask=NOTHING > 0)), enlarged(GREY))


def test_contours_lie_where_a_radial_ramp_crosses_the_levels() -> None:
    picture = np.zeros((SIDE, SIDE), np.uint8)
    drawn = brain_of(overlay(picture, radial(28.0) * 0.02, style="contours"))
    rows, columns = np.mgrid[: SIDE * FACTOR, : SIDE * FACTOR] - 223.5
    radius = np.hypot(rows, columns)
    where = {0.25: 0.75 * 28 * FACTOR, 0.5: 0.5 * 28 * FACTOR, 0.75: 0.25 * 28 * FACTOR}  # 147, 98 and 49 pixels
    assert tuple(where) == LEVELS
    # the middle four pixels stand 0.71 pixels from the top of the ramp, so `top` is 2.5 % less and circles are wider
    peak = 1 - np.hypot(0.5, 0.5) / 28
    on_a_line = np.zeros_like(radius, bool)
    for level in LEVELS:
        circle = (1 - level * peak) * 28 * FACTOR
        assert circle == pytest.approx(where[level], abs=0.03 * 28 * FACTOR)
        assert drawn[np.abs(radius - circle) < 0.3].any(axis=1).mean() > 0.97
        on_a_line |= np.abs(radius - circle) < 2.6  # half the line, its soft edge, and straight pieces for arcs
        entry = palette(False).colours[round(254 * level)]
        assert (np.abs(drawn[np.abs(radius - circle) < 2].astype(int) - entry).max(axis=1) <= 1).any()
    assert not drawn[~on_a_line].any()


def test_signed_contours_go_round_what_is_against_too() -> None:
    picture = np.zeros((SIDE, SIDE), np.uint8)
    against = -radial()
    assert not brain_of(overlay(picture, against, style="contours")).any()
    drawn = brain_of(overlay(picture, against, style="contours", signed=True))
    assert drawn[..., 2].sum() > 1.3 * drawn[..., 0].sum(), "blue"


# Margins


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("words", [("gradcam: glioma",), ODD, tuple("abcdefgh")])
def test_words_never_reach_the_brain(words: tuple[str, ...], style: str) -> None:
    options: dict[str, Any] = {"mask": radial() > 0.5, "style": style}
    plain = overlay(GREY, radial(), **options)
    drawn = overlay(GREY, radial(), words=words, **options)
    place = layout(SIDE, SIDE, len(words))
    np.testing.assert_array_equal(brain_of(drawn, len(words)), brain_of(plain))
    header = np.asarray(drawn)[: place.top]
    assert header.min() < 100, "something is written"
    assert (header[:, -place.left :] == 255).all(), "and keeps off the right edge"
    assert (header[-1] == 255).all()


def test_text_is_shortened_with_an_ellipsis_only_where_it_must() -> None:
    assert shortened("glioma\n\x00 0.98 ", 1000, 14) == "glioma 0.98"
    cut = shortened("word " * 10_000, 300, 14)
    assert cut.endswith("…")
    assert 20 < len(cut) < 60
    assert shortened("word", 0, 14) == "…"


def test_the_bar_tells_raw_values(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = overlay.__globals__["shortened"]
    monkeypatch.setitem(overlay.__globals__, "shortened", lambda text, *rest: written.append(text) or real(text, *rest))
    overlay(GREY, radial() * 0, top=0.0213)
    overlay(GREY, radial(), top=3e-7, signed=True)
    overlay(GREY, NOTHING)
    assert written == ["0", "0.011", "0.021", "−3e−07", "0", "3e−07"]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (224, 224), (300, 260), (1024, 1024), (32, 1024), (1024, 32)])
def test_slices_of_any_size_are_enlarged_by_a_whole_factor(height: int, width: int) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (height, width), np.uint8)
    relevance = np.zeros((height, width), np.float32)
    factor = {32: 14, 224: 2, 300: 1, 1024: 1}[max(height, width)]
    drawn = overlay(picture, relevance, words=ODD, top=1.0)
    assert drawn.mode == "RGB"
    assert drawn.size == layout(height, width, len(ODD)).size
    brain = brain_of(drawn, len(ODD), (height, width))
    assert brain.shape == (height * factor, width * factor, 3)
    np.testing.assert_array_equal(brain[::factor, ::factor, 1], picture)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"relevance is of shape \(32, 32\) where the picture is of \(64, 64\)"):
        overlay(GREY, NOTHING[:32, :32])
    with pytest.raises(ValueError, match="mask is of shape"):
        overlay(GREY, NOTHING, mask=NOTHING[:32] > 0)
    with pytest.raises(ValueError, match="style is 'fog', expected one of heat, contours"):
        overlay(GREY, NOTHING, style="fog")


def test_a_saved_overlay_is_the_drawn_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_overlay(path, GREY, radial(), words=ODD, mask=radial() > 0.5)
    with Image.open(path) as read:
        np.testing.assert_array_equal(np.asarray(read), overlay(GREY, radial(), words=ODD, mask=radial() > 0.5))
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


# The sheet


def test_examples_are_chosen_by_rank() -> None:
    labels = ["b", "a", "a", "a", "a", "a", "b", "b", "b", None]
    guesses = ["b", "a", "a", "a", "a", "b", "a", "a", "a", "a"]
    sure = [0.9, 0.6, 0.9, 0.7, 0.8, 0.5, 0.6, 0.9, 0.9, 0.4]
    # a, right, by rank: 2, 4, 3, 1; of the halves (2, 4) and (3, 1) the middle ones are 4 and 1
    # a, wrong: 5; b, right: 0; b, wrong, by rank: 7, 8, 6; unknown: 9
    assert choose_examples(labels, guesses, sure) == [4, 1, 5, 0, 7, 8, 9]
    assert choose_examples(labels, guesses, sure, per_class=1, wrong_per_class=0) == [3, 0, 9]
    assert choose_examples(labels, guesses, sure, per_class=9, wrong_per_class=9) == [2, 4, 3, 1, 5, 0, 7, 8, 6, 9]
    assert choose_examples([], [], []) == []
    with pytest.raises(ValueError, match="zip"):
        choose_examples(["a"], ["a"], [])


def test_one_of_each_is_the_median() -> None:
    assert choose_examples(["a"] * 5, ["a"] * 5, [0.5, 0.9, 0.7, 0.6, 0.8], per_class=1) == [2]


def example(label: str | None, predicted: str = "glioma", **options: Any) -> Example:
    maps = {"gradcam": radial(), "lime": -radial()}
    return Example("a/$1$.png", label, predicted, 0.9, GREY, predicted, maps, **options)


def test_an_example_knows_whether_it_is_right() -> None:
    assert example("glioma").correct is True
    assert example("none").correct is False
    assert example(None).correct is None


def texts_of_sheet(path: Path, monkeypatch: pytest.MonkeyPatch, *args: Any) -> list[str]:
    """Draws a sheet and tells what stands on it, top to bottom."""
    placed: list[tuple[float, str]] = []
    real = matplotlib.axes.Axes.text

    def text(self: Any, x: float, y: float, s: str, **options: Any) -> Any:
        placed.append((y, s))
        return real(self, x, y, s, **options)

    with monkeypatch.context() as patch, np.errstate(all="warn"):
        patch.setattr(matplotlib.axes.Axes, "text", text)
        summary_sheet(path, *args)
    return [words for _, words in sorted(placed, key=lambda item: item[0]) if words]


def test_the_sheet_keeps_right_and_wrong_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [
        example("pituitary", mask=radial() > 0.5),
        example("glioma", signed={"lime"}, flags={"lime": ["all negative"]}),
        example(None),
    ]
    texts = texts_of_sheet(tmp_path / "summary.png", monkeypatch, examples, ["gradcam", "lime", "absent"])
    blocks = [texts.index(title) for title in ("Correct predictions", "Wrong predictions", "Slices of unknown class")]
    assert blocks == sorted(blocks)
    right, wrong = texts[blocks[0] : blocks[1]], texts[blocks[1] : blocks[2]]
    assert {"slice", "gradcam", "lime", "absent", "glioma", "p = 0.90", "all negative"} <= set(right)
    assert {"pituitary", "predicted glioma", "p = 0.90"} <= set(wrong)
    assert "pituitary" not in right
    assert "tumour mask:" in texts
    assert "signed relevance: against" in texts
    with Image.open(tmp_path / "summary.png") as read:
        assert read.size[0] == round(150 * (2 * 0.15 + 1.65 + 4 * 1.56 - 0.06))


def test_the_sheet_says_that_nothing_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_of_sheet(tmp_path / "a.png", monkeypatch, [example("glioma")], ["gradcam"])
    assert "No wrong prediction among the slices explained." in texts
    assert "tumour mask:" not in texts
    texts = texts_of_sheet(tmp_path / "b.png", monkeypatch, [example(None)], ["gradcam"])
    assert "Slices of unknown class" in texts
    assert "Correct predictions" not in texts


def test_the_sheet_refuses_a_map_of_another_shape(tmp_path: Path) -> None:
    wrong = Example("7", "a", "a", 0.9, GREY, "a", {"gradcam": radial()[:32]})
    with pytest.raises(ValueError, match=r"gradcam of 7 is of shape \(32, 64\)"):
        summary_sheet(tmp_path / "a.png", [wrong], ["gradcam"])
    assert not list(tmp_path.iterdir())


def test_a_few_pixels_that_stand_far_out_do_not_hide_the_rest_of_a_signed_map() -> None:
    """1,000 values 1..1000 and one of a million: all but half a percent of 1,001 stay below the 996th."""
    relevance = np.zeros((40, 40), np.float32)
    relevance.flat[:1001] = [*range(1, 1001), 1e6]
    relevance.flat[:1001:2] *= -1
    assert scale_end(relevance, signed=True) == 996
    assert scale_end(np.abs(relevance), signed=False) == 1e6
    assert scale_end(np.zeros((4, 4), np.float32), signed=True) == 0
