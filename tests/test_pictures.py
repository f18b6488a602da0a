"""Pictures of every mode become uint8 or uint16 arrays; what cannot be read says why."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from braintumor_kit.contracts.classes import canonical_class, canonical_split, is_known_class
from braintumor_kit.contracts.pictures import MAX_PIXELS, has_suffix, is_junk, printable, read_picture
from braintumor_kit.errors import ImageError

GREY = np.array([[0, 1, 2], [3, 4, 255]], np.uint8)
DEEP = np.array([[0, 10000, 20000], [30000, 40000, 65535]], np.uint16)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def of_mode(mode: str) -> Image.Image:
    return Image.fromarray(GREY).convert(mode)


# Modes


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "RGBA"])
def test_grey_stays_grey_in_any_mode(mode: str) -> None:
    pixels = read_picture(encode(of_mode(mode)))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, GREY)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM", "PCX", "SGI"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    np.testing.assert_array_equal(read_picture(encode(Image.fromarray(GREY), kind)), GREY)


def test_bilevel_becomes_0_and_255() -> None:
    picture = encode(Image.fromarray(np.array([[True, False]])))
    np.testing.assert_array_equal(read_picture(picture), [[255, 0]])


def test_colour_stays_colour() -> None:
    colour = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)
    np.testing.assert_array_equal(read_picture(encode(Image.fromarray(colour))), colour)


def test_cmyk_becomes_rgb() -> None:
    cyan = Image.new("CMYK", (1, 1), (255, 0, 0, 0))
    np.testing.assert_array_equal(read_picture(encode(cyan, "TIFF")), [[[0, 255, 255]]])


def test_alpha_lies_over_black() -> None:
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], np.uint8)
    # 200 * 128 / 255 = 100.4, 100 * 128 / 255 = 50.2, 50 * 128 / 255 = 25.1
    np.testing.assert_array_equal(
        read_picture(encode(Image.fromarray(rgba))), [[[200, 100, 50], [0, 0, 0], [100, 50, 25]]]
    )


def test_grey_with_alpha_lies_over_black() -> None:
    la = np.array([[[200, 255], [200, 0]]], np.uint8)
    np.testing.assert_array_equal(read_picture(encode(Image.fromarray(la, "LA"))), [[200, 0]])


def test_transparent_colour_of_a_palette_is_black() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(read_picture(encode(image, transparency=0)), [[[0, 0, 0], [40, 50, 60]]])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_kept(kind: str) -> None:
    pixels = read_picture(encode(Image.fromarray(DEEP), kind))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, DEEP)


def test_big_endian_sixteen_bits_are_kept() -> None:
    tiff = encode(Image.fromarray(DEEP.astype(">u2")), "TIFF")
    assert tiff.getvalue()[:2] == b"MM"
    pixels = read_picture(tiff)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, DEEP)


def test_sixteen_bit_pgm_is_kept() -> None:
    pixels = read_picture(io.BytesIO(b"P5\n3 2\n65535\n" + DEEP.astype(">u2").tobytes()))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, DEEP)


def test_whole_numbers_beyond_sixteen_bits_are_stretched() -> None:
    values = np.array([[-100, 0, 100]], np.int32)
    pixels = read_picture(encode(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(pixels, np.array([[0, 32768, 65535]], np.uint16))


def test_floating_point_is_stretched() -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    pixels = read_picture(encode(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(pixels, np.array([[0, 32768, 65535]], np.uint16))


def test_constant_floating_point_is_black() -> None:
    pixels = read_picture(encode(Image.fromarray(np.full((2, 2), 3.5, np.float32)), "TIFF"))
    assert pixels.dtype == np.uint16
    assert not pixels.any()


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_floating_point_that_is_not_finite_is_refused(odd: float) -> None:
    tiff = encode(Image.fromarray(np.array([[0, odd]], np.float32)), "TIFF")
    with pytest.raises(ImageError, match=r"^the picture has pixels that are not finite$"):
        read_picture(tiff)


def test_first_picture_of_an_animation() -> None:
    second = Image.fromarray(255 - GREY)
    gif = encode(Image.fromarray(GREY), "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_picture(gif), GREY)


# Orientation: what the EXIF number does to the six pixels 0 1 2 / 3 4 5

UPRIGHT = {
    1: [[0, 1, 2], [3, 4, 5]],
    2: [[2, 1, 0], [5, 4, 3]],
    3: [[5, 4, 3], [2, 1, 0]],
    4: [[3, 4, 5], [0, 1, 2]],
    5: [[0, 3], [1, 4], [2, 5]],
    6: [[3, 0], [4, 1], [5, 2]],
    7: [[5, 2], [4, 1], [3, 0]],
    8: [[2, 5], [1, 4], [0, 3]],
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_orientation(kind: str, orientation: int, dtype: type) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.arange(6, dtype=dtype).reshape(2, 3))
    np.testing.assert_array_equal(read_picture(encode(stored, kind, exif=exif)), UPRIGHT[orientation])


def test_unknown_orientation_is_left_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    np.testing.assert_array_equal(read_picture(encode(Image.fromarray(GREY), exif=exif)), GREY)


# Files that cannot be read


def test_path_is_read(tmp_path: Path) -> None:
    path = tmp_path / "-odd\nname.png"
    Image.fromarray(GREY).save(path)
    np.testing.assert_array_equal(read_picture(path), GREY)


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_picture(path)
    return str(caught.value)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    assert refusal(path, b"") == f"{path} is empty"


def test_text_named_jpg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    assert refusal(path, b"hello world\n" * 50) == f"{path} is not a picture that Pillow can read"


def test_truncated_jpeg(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    content = encode(Image.fromarray(noise), "JPEG").getvalue()
    message = refusal(tmp_path / "a.jpg", content[: len(content) // 2])
    assert message.startswith(f"{tmp_path / 'a.jpg'} is cut off or damaged: image file is truncated")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damaged TIFF tags
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_cut_off_anywhere_is_one_clear_error(kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 40), np.uint8)
    content = encode(Image.fromarray(noise), kind).getvalue()
    for keep in (1, 10, 60, len(content) // 2):
        with pytest.raises(ImageError, match=r"^the picture is (not a picture|cut off or damaged)"):
            read_picture(io.BytesIO(content[:keep]))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damaged TIFF tags
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_damaged_bytes_never_surprise(kind: str) -> None:
    rng = np.random.default_rng(2)
    content = encode(Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)), kind).getvalue()
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(damaged), 200), 4):
            damaged[place] = rng.integers(256)
        try:
            pixels = read_picture(io.BytesIO(damaged))
        except ImageError:
            continue
        assert pixels.dtype in (np.uint8, np.uint16)


def png_of_size(width: int, height: int) -> bytes:
    """The head of a PNG that claims to be that large, and no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_too_many_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    message = refusal(path, png_of_size(10000, 8000))
    assert message == f"{path} has 80,000,000 pixels (10000 x 8000), more than the 33,554,432 that are allowed"


def test_decompression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    message = refusal(path, png_of_size(50000, 50000))
    assert message == f"{path} has more than the {MAX_PIXELS:,} pixels that are allowed"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nothing\.png does not exist$"):
        read_picture(tmp_path / "nothing.png")
    with pytest.raises(ImageError, match=r"is not a file$"):
        read_picture(tmp_path)


def test_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png is not a file$"):
        read_picture(tmp_path / "a.png")


def test_postscript_is_not_run(tmp_path: Path) -> None:
    message = refusal(tmp_path / "a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    assert message.endswith("is not a picture that Pillow can read")


# Names


@pytest.mark.parametrize(
    "name", [".DS_Store", "._a.jpg", ".ipynb_checkpoints", "Thumbs.db", "desktop.ini", "__MACOSX", ".git"]
)
def test_junk(name: str) -> None:
    assert is_junk(name)


@pytest.mark.parametrize("name", ["Te-gl_0010.jpg", "glioma", "macosx.png", "-a.png", "a.DS_Store"])
def test_no_junk(name: str) -> None:
    assert not is_junk(name)


def test_suffix_in_any_case() -> None:
    assert has_suffix("A.JPG", {".jpg"})
    assert not has_suffix("jpg", {".jpg"})


def test_printable_is_one_line() -> None:
    assert printable("a\nb") == r"a\nb"
    assert printable(b"\xff.png".decode(errors="surrogateescape")) == r"\udcff.png"
    assert printable("größe.png") == "größe.png"


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        ("glioma Glioma glioma_tumor GLIOMA-TUMOUR gl", "glioma"),
        ("meningioma meningioma_tumor me", "meningioma"),
        ("notumor no_tumor No-Tumour no none healthy Normal NO", "notumor"),
        ("pituitary pituitary_tumor Pituitary_Adenoma adenoma pi", "pituitary"),
        ("yes tumor Tumour", "tumour"),
    ],
)
def test_class_spellings(spellings: str, name: str) -> None:
    assert {canonical_class(spelling) for spelling in spellings.split()} == {name}
    assert canonical_class("no tumor") == "notumor"


def test_unknown_class_is_unchanged() -> None:
    assert canonical_class("Metastasis_2") == "Metastasis_2"
    assert not is_known_class("Metastasis_2")


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        ("Training train TRAIN training tr", "train"),
        ("val valid Validation dev", "validation"),
        ("Testing test te", "test"),
        ("glioma images 1", None),
    ],
)
def test_split_spellings(spellings: str, name: str | None) -> None:
    assert {canonical_split(spelling) for spelling in spellings.split()} == {name}
