"""The page in a browser: a scan is dropped on it as a hand would, and what it shows is what the commands say."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pages import VIEWS, chromium, opened, overflow, until, violations
from playwright.sync_api import Browser, FileChooser, Page
from test_serve import png, serving
from volumes import as_nifti, phantom, save_series

DROP = """([name, text]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], name, { type: "image/png" }));
    for (const kind of ["dragenter", "dragover", "drop"]) {
        document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
    }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(finished: Path) -> Iterator[str]:
    with serving(finished) as (found, _):
        yield found


def drop(page: Page, name: str, content: bytes) -> None:
    page.wait_for_selector("body[data-ready]")
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])


def answered(page: Page) -> None:
    page.wait_for_selector("#answer:not([hidden])")
    until(page, "!document.querySelector('[aria-busy]')")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_a_dropped_scan_gets_class_and_map(
    width: int, scheme: str, browser: Browser, address: str, finished: Path, tmp_path: Path, btkit: Any
) -> None:
    (tmp_path / "scan.png").write_bytes(png(3))
    assert btkit("explain", finished, tmp_path / "scan.png", "--out", tmp_path / "maps").status == 0
    (expected,) = json.loads(btkit("predict", finished, tmp_path / "scan.png", "--json").out)
    with opened(browser, address, width, scheme, accept_downloads=True) as (page, heard):
        drop(page, "scan.png", png(3))
        answered(page)
        assert page.text_content("#predicted") == expected["predicted"]
        assert page.text_content("#sure") == f"p = {expected['calibrated'][expected['predicted']]:.3f}"
        rows = page.locator("#classes tbody tr").all_text_contents()
        assert sorted(rows) == sorted(f"{name}{p:.3f}" for name, p in expected["calibrated"].items())
        assert page.is_visible("#caution") == bool(expected["out_of_distribution"] or expected["abstain"])
        assert page.is_visible("#notice")
        with page.expect_download() as kept:
            page.click(".save-map")
        values = np.load(kept.value.path(), allow_pickle=False)
        (file,) = (tmp_path / "maps" / "maps").glob("*.npy")
        np.testing.assert_allclose(values, np.load(file), rtol=1e-4, atol=1e-6 * float(np.abs(values).max()))
        assert heard.errors == []
        assert heard.outside(address) == []
        assert violations(page) == []
        assert overflow(page) == 0


def test_methods_targets_and_sliders(browser: Browser, address: str) -> None:
    with opened(browser, address, 1280, "light", accept_downloads=True) as (page, heard):
        drop(page, "scan.png", png(4))
        answered(page)
        page.select_option(".method", "occlusion")
        page.select_option(".target", "glioma")
        page.select_option(".against", "pituitary")
        until(page, "document.querySelector('.says').textContent.includes('glioma-vs-pituitary')")
        page.check("#compare")
        until(page, "document.querySelectorAll('.layer[src]').length === 2")
        assert page.locator(".panel").count() == 2
        page.fill("#opacity", "20")
        assert page.evaluate("getComputedStyle(document.querySelector('.layer')).opacity") == "0.2"
        page.fill("#zoom", "200")
        wide = "document.querySelector('.view').scrollWidth / document.querySelector('.view').clientWidth"
        assert page.evaluate(wide) == pytest.approx(2, abs=0.05)
        assert violations(page) == []
        for button, ending in ((".save-picture", ".occlusion.png"), (".save-summary", ".occlusion.html")):
            with page.expect_download() as kept:
                page.locator(button).first.click()
            assert kept.value.suggested_filename == f"scan{ending}"
        page.uncheck("#compare")
        assert page.locator(".panel").count() == 1
        assert heard.errors == []


def test_a_text_that_is_named_png_gets_a_plain_sentence(browser: Browser, address: str) -> None:
    with opened(browser, address, 390, "light") as (page, heard):
        drop(page, "<b>notes</b>.png", b"these are no pixels")
        page.wait_for_selector("#error:not([hidden])")
        said = "<b>notes</b>.png: The picture is not a picture that Pillow can read."
        assert page.text_content("#error") == said
        assert page.is_hidden("#answer")
        heard.errors = [text for text in heard.errors if "422" not in text]  # Chromium's own note of the status
        assert heard.errors == []
        assert violations(page) == []
        drop(page, "scan.png", png(5))
        answered(page)
        assert page.is_hidden("#error")


def test_what_is_shown_is_of_what_is_chosen(browser: Browser, address: str) -> None:
    """A scan whose map fails shows neither the answer of the one before nor keeps the others from being tried."""
    with opened(browser, address, 1280, "light") as (page, _):
        drop(page, "one.png", png(6))
        answered(page)
        drop(page, "broken.png", b"no picture")
        page.wait_for_selector("#error:not([hidden])")
        assert page.is_hidden("#answer")
        assert page.get_attribute(".layer", "src") is None
        assert page.is_disabled(".save-map")
        assert page.is_enabled(".method")
        page.click("#scans button >> nth=0")
        answered(page)
        assert page.is_hidden("#error")
        page.select_option(".against", page.text_content("#predicted"))  # the predicted class against itself
        page.wait_for_selector("#error:not([hidden])")
        assert "cannot be explained against itself" in str(page.text_content("#error"))
        page.wait_for_selector("#answer:not([hidden])")  # its class is known all the same
        page.select_option(".against", "")
        until(page, "document.querySelector('.layer').src.startsWith('data:')")


@pytest.mark.alone
def test_it_works_by_keyboard_alone(browser: Browser, address: str, tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(png(len(name)))
    choosers: list[FileChooser] = []
    with opened(browser, address, 1280, "dark") as (page, _):
        page.on(
            "filechooser", lambda chooser: choosers.append(chooser)
        )  # the browser is told to hand them over before a key is pressed
        page.wait_for_selector("body[data-ready]")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        page.keyboard.press("Space")
        for _ in range(300):
            if not choosers:
                page.wait_for_timeout(100)
        choosers[0].set_files([tmp_path / "one.png", tmp_path / "two.png"])
        answered(page)
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "two.png"
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#status').textContent.startsWith('two.png: ')")
        for _ in range(3):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "zoom"
        page.keyboard.press("ArrowRight")
        assert page.input_value("#zoom") == "125"


# Volumes

DROP_MANY = """(files) => {
    const carried = new DataTransfer();
    for (const [name, text] of files) {
        carried.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
    }
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
}"""


def drop_many(page: Page, files: list[Path]) -> None:
    page.wait_for_selector("body[data-ready]")
    page.evaluate(DROP_MANY, [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in files])


@pytest.mark.parametrize("form", ["nifti", "dicom"])
@pytest.mark.parametrize(("width", "scheme"), [VIEWS[0], VIEWS[3]])
def test_a_volume_is_stepped_through(
    width: int, scheme: str, form: str, browser: Browser, address: str, finished: Path, tmp_path: Path, btkit: Any
) -> None:
    slices = phantom(5)
    if form == "nifti":
        nibabel.save(as_nifti(slices, "RAS"), tmp_path / "scan.nii.gz")
        files = [tmp_path / "scan.nii.gz"]
    else:
        save_series(slices, tmp_path)
        files = sorted(tmp_path.iterdir())
    *each, whole = json.loads(btkit("predict", finished, *files, "--json").out)
    with opened(browser, address, width, scheme, accept_downloads=True) as (page, heard):
        drop_many(page, files)
        answered(page)
        assert page.locator("#scans li").count() == 1
        assert page.text_content("#slice-number") == "3 of 5"
        assert page.text_content("#predicted") == each[2]["predicted"]
        page.fill("#slice", "5")
        page.dispatch_event("#slice", "change")
        until(page, "document.querySelector('#status').textContent.includes('slice 5')")
        answered(page)
        assert page.text_content("#sure") == f"p = {each[4]['calibrated'][each[4]['predicted']]:.3f}"
        page.click("#whole")
        page.wait_for_selector("#whole-answer p")
        words = page.text_content("#whole-answer p") or ""
        assert words.startswith(f"The volume: {whole['predicted']}, p = {whole['calibrated'][whole['predicted']]:.3f}")
        name, peak = next(iter(whole["peaks"].items()))
        page.click(f"#whole-answer button:has-text('{name}:')")
        until(page, f"document.querySelector('#status').textContent.includes('slice {peak['slice']}:')")
        answered(page)
        with page.expect_download() as kept:
            page.click(".save-map")
        assert kept.value.suggested_filename.endswith(f".{peak['slice']}.gradcam.npy")
        assert page.is_visible("#plane") == (form == "nifti")
        if form == "nifti":
            page.select_option("#plane", "coronal")
            until(page, "document.querySelector('#slice-number').textContent === '33 of 64'")
            answered(page)
        assert heard.errors == []
        assert violations(page) == []
        assert overflow(page) == 0
