"""Pixel preparation, with values worked out by hand."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from braintumor_kit.data.pixels import (
    Box,
    crop_box,
    head_box,
    prepare,
    prepare_mask,
    restore,
    stretch_percentiles,
)
from braintumor_kit.errors import ImageError
from braintumor_kit.recipe.tables import PixelsTable


def settings(size: int = 32, **keys: Any) -> PixelsTable:
    return PixelsTable(image_size=size, **keys)


def block(value: int = 200, dtype: type = np.uint8, size: tuple[int, int] = (100, 120)) -> np.ndarray:
    """A bright rectangle, rows 20..79 and columns 40..89, on black."""
    picture = np.zeros(size, dtype)
    picture[20:80, 40:90] = value
    return picture


# Brightness and colour


def test_picture_of_the_right_size_is_taken_as_it_is() -> None:
    picture = np.arange(1024, dtype=np.uint16).reshape(32, 32).astype(np.uint8)
    prepared = prepare(picture, settings())
    assert prepared.shape == (32, 32, 1)
    assert prepared.dtype == np.uint8
    assert np.shares_memory(prepared, picture)
    np.testing.assert_array_equal(prepared[..., 0], picture)


def test_sixteen_bits_are_stretched_by_their_own_range() -> None:
    ramp = np.zeros((32, 32), np.uint16)
    ramp[0, :4] = [1000, 1000, 2275, 3550]  # darkest 1000, brightest 3550: 10 steps a grey level
    ramp[1:] = 1000
    ramp[0, 4:] = 1000
    ramp[5, 5] = 1017
    prepared = prepare(ramp, settings())[..., 0]
    assert prepared[0, :4].tolist() == [0, 0, 128, 255]  # 127.5 rounds to even
    assert prepared[5, 5] == 2  # 1.7
    assert prepared[9, 9] == 0


def test_constant_sixteen_bit_picture_is_black() -> None:
    assert not prepare(np.full((50, 40), 777, np.uint16), settings()).any()


def test_eight_bits_are_not_stretched() -> None:
    assert (prepare(np.full((50, 40), 77, np.uint8), settings()) == 77).all()


@pytest.mark.parametrize(
    ("colour", "grey"),
    [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((10, 20, 30), 18), ((9, 9, 9), 9)],
)
def test_luminance(colour: tuple[int, int, int], grey: int) -> None:
    picture = np.full((40, 40, 3), colour, np.uint8)
    assert (prepare(picture, settings()) == grey).all()


def test_luminance_of_sixteen_bits() -> None:
    picture = np.zeros((32, 32, 3), np.uint16)
    picture[0, 0] = (65535, 0, 0)  # 255 * 0.299 = 76.2
    picture[0, 1] = (0, 65535, 0)  # 255 * 0.587 = 149.7
    assert prepare(picture, settings())[0, :2, 0].tolist() == [76, 150]


def test_colour_may_be_kept() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[4, 7] = (10, 20, 30)
    prepared = prepare(picture, settings(colour="rgb"))
    assert prepared.shape == (32, 32, 3)
    assert prepared[4, 7].tolist() == [10, 20, 30]


def test_grey_is_repeated_for_colour() -> None:
    prepared = prepare(np.full((32, 32), 5, np.uint8), settings(colour="rgb"))
    assert prepared.shape == (32, 32, 3)
    assert (prepared == 5).all()


# Fit


def test_stretching_averages_without_aliasing() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200  # one pixel wide: plain subsampling would give all 0 or all 200
    inner = prepare(stripes, settings())[1:-1, 1:-1]
    assert inner.min() == inner.max() == 100


def test_stretch_ignores_the_shape_and_pad_keeps_it() -> None:
    wide = np.full((32, 64), 90, np.uint8)
    assert (prepare(wide, settings(fit="stretch")) == 90).all()
    padded = prepare(wide, settings(64, fit="pad"))[..., 0]
    assert (padded[16:48] == 90).all()  # 32 rows in the middle of 64
    assert not padded[:16].any()
    assert not padded[48:].any()


def test_resize_is_pillows() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (75, 51), np.uint8)
    expected = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(prepare(picture, settings())[..., 0], expected)


def test_sixteen_bits_are_rounded_once() -> None:
    """Resizing happens in floating point: the mean of 0 and one grey level and a half is not lost."""
    picture = np.zeros((64, 64), np.uint16)
    picture[:, ::2] = 385  # 1.498 of 255 when the brightest is 65535, mean 0.749
    picture[0, 0] = 65535
    assert (prepare(picture, settings())[8:, 8:-1] == 1).all()


def test_same_picture_gives_the_same_square() -> None:
    picture = np.random.default_rng(3).integers(0, 65536, (90, 70), np.uint16)
    choice = settings(crop="head", intensity="percentile")
    np.testing.assert_array_equal(prepare(picture, choice), prepare(picture.copy(), choice))


# The head


def test_head_box_encloses_the_head() -> None:
    assert head_box(block()) == Box(top=20, left=40, bottom=80, right=90)


@pytest.mark.parametrize("change", ["dimmed", "on a lifted background", "with a speck", "noisy"])
def test_head_box_is_robust(change: str) -> None:
    picture = block()
    if change == "dimmed":
        picture = block(value=12)
    elif change == "on a lifted background":
        picture = (picture // 2) + 60
    elif change == "with a speck":
        picture[2:8, 2:12] = 255
    else:
        picture = picture + np.random.default_rng(0).integers(0, 12, picture.shape, np.uint8)
    np.testing.assert_allclose(head_box(picture), (20, 40, 80, 90), atol=1)


def test_scalp_apart_from_the_brain_belongs_to_the_head() -> None:
    y, x = np.mgrid[:120, :120]
    radius = np.hypot(y - 60, x - 60)
    head = np.where(radius < 35, 120, 0) + np.where((radius > 42) & (radius < 50), 200, 0)
    np.testing.assert_allclose(head_box(head.astype(np.uint8)), (10, 10, 111, 111), atol=2)


def test_margin_is_a_part_of_the_longer_side_and_ends_at_the_edge() -> None:
    assert head_box(block(), margin=0.1) == Box(14, 34, 86, 96)  # a tenth of 60
    assert head_box(block(), margin=1.0) == Box(0, 0, 100, 120)


@pytest.mark.parametrize("picture", [np.zeros((50, 60), np.uint8), np.full((50, 60), 200, np.uint8)])
def test_no_head_means_the_whole_picture(picture: np.ndarray) -> None:
    assert head_box(picture) == Box(0, 0, 50, 60)


def test_absurdly_small_head_means_the_whole_picture() -> None:
    picture = np.zeros((200, 200), np.uint8)
    picture[100:108, 100:108] = 255
    assert head_box(picture) == Box(0, 0, 200, 200)


def test_large_picture_has_the_same_box_enlarged() -> None:
    large = np.kron(block(), np.ones((4, 4), np.uint8))  # 400 x 480, searched at 200 x 240
    assert head_box(large) == Box(80, 160, 320, 360)


def test_crop_removes_the_frame() -> None:
    framed = prepare(block(), settings(crop="head", crop_margin=0))[..., 0]
    assert framed.min() == 200
    assert crop_box(block(), settings()) == Box(0, 0, 100, 120)


def test_crop_looks_at_luminance_and_any_bit_depth() -> None:
    choice = settings(crop="head")
    colour = np.repeat(block()[..., None], 3, axis=2)
    deep = block(60000, np.uint16)
    assert crop_box(colour, choice) == crop_box(deep, choice) == crop_box(block(), choice)


# Intensity


def test_percentile_stretches_the_head() -> None:
    picture = block()
    picture[20:80, 40:90] = np.linspace(100, 150, 50).astype(np.uint8)  # from left to right
    prepared = prepare(picture, settings(120, intensity="percentile", fit="pad"))[..., 0]
    assert prepared[50, [40, 89]].tolist() == [0, 255]  # of 120 rows, the picture has 10..109
    assert prepared[50, 64] == round((int(picture[40, 64]) - 100) * 255 / 50)
    assert not prepared[:28].any()  # the background stays black


def test_percentile_is_blind_to_exposure() -> None:
    rng = np.random.default_rng(0)
    picture = block()
    picture[20:80, 40:90] = rng.integers(60, 100, (60, 50))
    choice = settings(100, intensity="percentile")
    twice = prepare(picture * 2, choice).astype(int)
    np.testing.assert_allclose(prepare(picture, choice), twice, atol=1)


def test_percentile_by_hand() -> None:
    """A head of 0..255 in equal parts: its 1st and 99th percentile, 2.55 and 252.45, become 0 and 255."""
    picture = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    picture[:, :24] = np.arange(24)
    stretched = stretch_percentiles(picture, np.ones(picture.shape, bool))
    np.testing.assert_allclose(stretched[0, [0, 2, 253, 255]], [0, 0, 255, 255])
    np.testing.assert_allclose(stretched[0, 100], (100 - 2) * 255 / (253 - 2), atol=0.8)


def test_without_contrast_nothing_is_stretched() -> None:
    flat = np.full((32, 32), 70, np.uint8)
    assert (prepare(flat, settings(intensity="percentile")) == 70).all()


# Masks


def test_mask_follows_crop_and_fit() -> None:
    mask = np.zeros((100, 120), bool)
    mask[30:50, 50:70] = True
    square = prepare_mask(mask, block(), settings(60, crop="head", crop_margin=0, fit="pad"))
    expected = np.zeros((60, 60), bool)
    expected[10:30, 15:35] = True  # cut to 60 x 50 from row 20 and column 40, five black columns on each side
    np.testing.assert_array_equal(square, expected)


def test_mask_of_the_right_size_is_unchanged() -> None:
    mask = np.random.default_rng(0).random((32, 32)) < 0.3
    np.testing.assert_array_equal(prepare_mask(mask, np.zeros((32, 32), np.uint8), settings()), mask)


def test_mask_keeps_what_it_covers_by_more_than_half() -> None:
    mask = np.zeros((64, 64), bool)
    mask[0, 0] = True  # a quarter of the square's first pixel
    mask[4:6, 4:6] = True  # a whole one
    mask[8:10, 8] = mask[8, 9] = True  # three quarters
    small = prepare_mask(mask, np.zeros((64, 64), np.uint8), settings())
    assert np.argwhere(small).tolist() == [[2, 2], [4, 4]]


def test_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ImageError, match=r"^its mask is 10 x 12 pixels where the picture is 12 x 10$"):
        prepare_mask(np.zeros((10, 12), bool), np.zeros((12, 10), np.uint8), settings())


@pytest.mark.parametrize(
    "odd",
    [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8)],
)
def test_other_arrays_are_refused(odd: np.ndarray) -> None:
    with pytest.raises(ImageError, match="the source should give uint8 or uint16 pixels"):
        prepare(odd, settings())


def test_a_line_of_a_picture_is_padded_without_a_square_of_its_length() -> None:
    line = np.full((1, 2**22), 200, np.uint8)
    square = prepare(line, PixelsTable(image_size=32, fit="pad"))[..., 0]
    assert square.shape == (32, 32)
    assert (square == 200).any(axis=1).sum() == 1


# Back to the picture's own grid


def ramp(height: int = 100, width: int = 120) -> np.ndarray:
    """Grey rises evenly, down and across: bilinear resizing keeps it, but for the outermost pixels."""
    down, across = np.mgrid[:height, :width]
    return (40 + 80 * down / (height - 1) + 120 * across / (width - 1)).astype(np.float32)


@pytest.mark.parametrize("size", [32, 60, 224])
@pytest.mark.parametrize("fit", ["stretch", "pad"])
@pytest.mark.parametrize("shape", [(100, 120), (120, 100), (37, 53), (64, 64)])
def test_restoring_undoes_what_preparing_did(size: int, fit: str, shape: tuple[int, int]) -> None:
    picture = np.rint(ramp(*shape)).astype(np.uint8)
    choice = settings(size, fit=fit)
    back = restore(prepare(picture, choice)[..., 0].astype(np.float32), picture, choice)
    assert back.dtype == np.float32
    assert back.shape == shape
    inner = slice(4, -4), slice(4, -4)
    np.testing.assert_allclose(back[inner], picture[inner], atol=2)
    assert np.abs(back - picture).max() < 8


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_restoring_puts_a_cropped_head_back_in_its_place(fit: str) -> None:
    picture = np.zeros((100, 120), np.uint8)
    picture[20:80, 40:90] = ramp(60, 50)
    choice = settings(90, fit=fit, crop="head", crop_margin=0.1)
    back = restore(prepare(picture, choice)[..., 0].astype(np.float32), picture, choice)
    np.testing.assert_allclose(back[23:77, 43:87], picture[23:77, 43:87], atol=2.5)
    everywhere = restore(np.ones((90, 90), np.float32), picture, choice)
    rows, columns = np.flatnonzero(everywhere.any(axis=1)), np.flatnonzero(everywhere.any(axis=0))
    box = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    np.testing.assert_allclose(box, (14, 34, 86, 96), atol=1)  # a tenth of 60 around the head
    assert everywhere.sum() == (box[2] - box[0]) * (box[3] - box[1])  # all of the box, and nothing beside it


def test_restoring_by_hand() -> None:
    """A wide picture stands in the middle of the square; what lies over the padding is dropped."""
    picture = np.zeros((16, 32), np.uint8)
    values = np.full((32, 32), 9, np.float32)
    values[8:24] = np.arange(16, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(restore(values, picture, settings(fit="pad")), values[8:24])
    twice = restore(values, np.zeros((32, 64), np.uint8), settings(fit="pad"))
    assert twice.shape == (32, 64)
    np.testing.assert_allclose(twice[:5, 0], [0, 0.25, 0.75, 1.25, 1.75])  # centres of halved rows
    np.testing.assert_array_equal(restore(values, np.zeros((32, 32), np.uint8), settings()), values)


def test_restoring_keeps_the_sign_and_takes_colour_and_sixteen_bits() -> None:
    values = np.linspace(-3, 5, 32 * 32, dtype=np.float32).reshape(32, 32)
    for picture in (np.zeros((48, 40, 3), np.uint8), np.zeros((48, 40), np.uint16)):
        back = restore(values, picture, settings())
        assert back.shape == (48, 40)
        assert back.min() == pytest.approx(-3, abs=0.1)
        assert back.max() == pytest.approx(5, abs=0.1)
    with pytest.raises(ImageError, match="the source should give uint8 or uint16 pixels"):
        restore(values, np.zeros((4, 4)), settings())
