"""The phantom: reproducible, balanced, true to what its masks and its shortcut claim."""

import hashlib
import subprocess
import sys
from collections import Counter
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from btkit_plugins.phantom import template
from btkit_plugins.phantom.head import Blob
from btkit_plugins.phantom.lesions import Glioma
from btkit_plugins.phantom.painting import head_points, ideal_slice, inner_distance, to_template
from btkit_plugins.phantom.patients import draw_patient, draw_slice
from btkit_plugins.phantom.planes import NORMAL_AXIS, Slice
from btkit_plugins.phantom.randomness import Waves, smoothstep, stream
from btkit_plugins.phantom.template import Volume
from btkit_plugins.sources.phantom import Phantom, PhantomOptions, mark_box
from pydantic import ValidationError
from scipy import ndimage

from braintumor_kit.contracts import ImageError, InputError, Sample

SIZE = 128
PATIENTS = 24


def phantom(**options):
    return Phantom(PhantomOptions(**{"patients": PATIENTS, "slices_per_patient": 3, "size": SIZE} | options))


def samples_of(source, label):
    return [sample for sample in source.samples() if sample.label == label]


def patient_and_slice(sample):
    group, plane, number = sample.id.split("-")
    index = int(group[1:])
    return draw_patient(0, index), draw_slice(0, index, int(number), plane)


def tumour_coordinates(source, sample):
    """Template coordinates (3, N) of the mask's pixels, in mm, and their distance to the inner table."""
    patient, geometry = patient_and_slice(sample)
    points = to_template(patient.body, geometry, SIZE)[:, source.mask(sample).reshape(-1)]
    return points, inner_distance(points)


# What is listed


def test_ids_and_groups():
    first, second, *_ = phantom(patients=4).samples()
    assert first == Sample("p0000-axial-0", "glioma", group="p0000", has_mask=True)
    assert second == Sample("p0000-coronal-1", "glioma", group="p0000", has_mask=True)


def test_default_is_about_a_thousand_slices_with_unique_ids():
    ids = [sample.id for sample in Phantom(PhantomOptions()).samples()]
    assert len(ids) == len(set(ids)) == 1024


def test_classes_are_balanced_over_patients():
    patients = {sample.group: sample.label for sample in phantom().samples()}
    assert Counter(patients.values()) == dict.fromkeys(Phantom.classes, PATIENTS // 4)


@pytest.mark.parametrize("slices", [1, 2, 4])
def test_every_class_has_the_same_planes(slices):
    source = phantom(slices_per_patient=slices)
    mixes = [Counter(s.id.split("-")[1] for s in samples_of(source, label)) for label in source.classes]
    assert all(mix == mixes[0] for mix in mixes)
    assert set(mixes[0]) == {"axial", "coronal", "sagittal"}


def test_planes_can_be_chosen():
    planes = {sample.id.split("-")[1] for sample in phantom(planes=("coronal",)).samples()}
    assert planes == {"coronal"}
    with pytest.raises(ValidationError, match="name each plane once"):
        phantom(planes=("axial", "axial"))


# Reproducible


def test_same_bytes_in_any_order_and_instance():
    samples = list(phantom(patients=8).samples())[::5]
    forwards = [phantom().image(sample) for sample in samples]
    source = phantom()
    backwards = [source.image(sample) for sample in reversed(samples)]
    for first, second in zip(forwards, reversed(backwards), strict=True):
        np.testing.assert_array_equal(first, second)


def test_same_bytes_in_another_process():
    sample = Sample("p0001-coronal-0", "meningioma")
    code = (
        "import hashlib; from btkit_plugins.sources.phantom import *;"
        "from braintumor_kit.contracts import Sample;"
        f"source = Phantom(PhantomOptions(size={SIZE}, planes=('coronal',)));"
        f"print(hashlib.sha256(source.image({sample!r}).tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = hashlib.sha256(phantom(planes=("coronal",)).image(sample).tobytes()).hexdigest()
    assert here == there


def test_more_patients_and_slices_leave_earlier_ones_alone():
    few, many = phantom(patients=5), phantom(patients=50, slices_per_patient=9)
    for sample in list(few.samples())[::4]:
        np.testing.assert_array_equal(few.image(sample), many.image(sample))
        assert few.fingerprint(sample) == many.fingerprint(sample)


def test_another_seed_gives_another_picture():
    sample = next(phantom().samples())
    assert (phantom(seed=1).image(sample) != phantom().image(sample)).mean() > 0.5


def test_fingerprint_tells_pictures_apart():
    prints = {
        source.fingerprint(sample)
        for source in (phantom(), phantom(seed=1), phantom(size=SIZE + 1))
        for sample in source.samples()
    }
    assert len(prints) == 3 * 3 * PATIENTS


def test_fingerprint_follows_the_mark_only_where_it_is_drawn():
    plain, marked = phantom(), phantom(shortcut="glioma")
    for sample in plain.samples():
        same = plain.fingerprint(sample) == marked.fingerprint(sample)
        assert same == (sample.label != "glioma")


# Pictures and masks


@pytest.mark.parametrize("size", [64, 131, 224])
def test_picture_is_grey_bytes_of_the_asked_size(size):
    source = phantom(size=size)
    sample = next(source.samples())
    picture = source.image(sample)
    assert picture.dtype == np.uint8
    assert picture.shape == source.mask(sample).shape == (size, size)
    assert 10 < picture.mean() < 110


def test_size_changes_the_grid_and_not_the_scene():
    sample = next(phantom().samples())
    small, large = (phantom(size=size).mask(sample).mean() for size in (112, 448))
    assert small == pytest.approx(large, rel=0.05)


@pytest.mark.parametrize("label", ["glioma", "meningioma", "pituitary"])
def test_every_slice_of_a_tumour_patient_shows_the_tumour_inside_the_head(label):
    source = phantom()
    for sample in samples_of(source, label):
        mask = source.mask(sample)
        assert sample.has_mask
        assert mask.mean() >= 0.003, sample.id
        patient, geometry = patient_and_slice(sample)
        seen, place = head_points(patient.body, geometry, SIZE)
        assert set(np.flatnonzero(mask)) <= set(seen[place.skin < 0]), sample.id


def test_no_mask_without_tumour():
    source = phantom()
    for sample in samples_of(source, "notumor"):
        assert not sample.has_mask
        assert source.mask(sample) is None


def test_slices_without_tumour_lie_where_a_tumour_could_be():
    for sample in samples_of(phantom(), "notumor"):
        patient, geometry = patient_and_slice(sample)
        axis = NORMAL_AXIS[geometry.plane]
        offset = np.array(geometry.through) - patient.body.to_patient(patient.site.centre)
        assert patient.lesion is None
        assert abs(offset[axis]) <= 0.5 * patient.site.radii[axis] + 1e-3


def test_glioma_is_intra_axial():
    source = phantom()
    for sample in samples_of(source, "glioma"):
        _, inner = tumour_coordinates(source, sample)
        assert inner.max() <= -3


def test_meningioma_grows_from_the_dura():
    source = phantom()
    depths = [-tumour_coordinates(source, sample)[1].max() for sample in samples_of(source, "meningioma")]
    assert np.median(depths) < 2
    assert max(depths) < 10


def test_adenoma_is_in_the_midline_of_the_sella():
    source = phantom()
    for sample in samples_of(source, "pituitary"):
        (x, y, z), _ = tumour_coordinates(source, sample)
        assert abs(np.median(x)) < 8
        assert -16 < y.min() <= y.max() < 22
        assert -45 < z.min() <= z.max() < -2


def test_glioma_has_a_bright_ring_around_a_dark_core():
    source = phantom(size=224)
    for sample in samples_of(source, "glioma")[::2]:
        mask, tones = source.mask(sample), ideal_slice(*patient_and_slice(sample), 224)
        depth = ndimage.distance_transform_edt(mask)
        core, ring = tones[depth > 0.7 * depth.max()], tones[(depth >= 1.5) & (depth < 3)]
        assert ring.mean() > 1.5 * core.mean(), sample.id


def test_meningioma_is_evenly_brighter_than_brain():
    source = phantom(size=224)
    for sample in samples_of(source, "meningioma")[::2]:
        patient, geometry = patient_and_slice(sample)
        inside = ideal_slice(patient, geometry, 224)[ndimage.binary_erosion(source.mask(sample), iterations=3)]
        assert inside.mean() > 1.25 * patient.body.tones.white
        assert inside.std() < 0.12 * inside.mean()


# The shortcut


def test_no_mark_by_default():
    assert not any(phantom().carries_mark(sample) for sample in phantom().samples())


@pytest.mark.parametrize("label", ["notumor", "pituitary"])
def test_perfect_shortcut_marks_its_class_alone(label):
    plain, marked = phantom(slices_per_patient=1), phantom(slices_per_patient=1, shortcut=label)
    for sample in list(plain.samples())[:8]:
        before, after = plain.image(sample), marked.image(sample)
        changed = before != after
        assert marked.carries_mark(sample) == changed.any() == (sample.label == label)
        changed[mark_box(SIZE)] = False
        assert not changed.any()
        if sample.label == label:
            assert after[mark_box(SIZE)].max() == 235
            assert after[mark_box(SIZE)].mean() > 70


def test_strength_is_the_marks_frequency():
    source = phantom(patients=1200, slices_per_patient=2, shortcut="glioma", shortcut_strength=0.8)
    marks = {label: np.mean([source.carries_mark(s) for s in samples_of(source, label)]) for label in source.classes}
    assert marks.pop("glioma") == pytest.approx(0.8, abs=0.06)
    assert all(share == pytest.approx(0.2, abs=0.06) for share in marks.values())


# Errors


@pytest.mark.parametrize(
    "name", ["p0000-coronal-0", "p0024-axial-0", "p0000-axial-3", "p00000-axial-0", "glioma/1.jpg"]
)
def test_unknown_id(name):
    with pytest.raises(ImageError, match=r"no sample .* ids look like p0000-axial-0"):
        phantom().image(Sample(name, "glioma"))


def test_nilearn_missing(monkeypatch):
    monkeypatch.setattr(template, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed: pip install nilearn"):
        list(phantom().samples())


def test_template_file_missing(monkeypatch, tmp_path):
    spec = ModuleSpec("nilearn", None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(template, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match=r"mni_icbm152_t1_.*is missing: pip install --force-reinstall nilearn"):
        template.template_paths()


# The parts, worked by hand


def test_smoothstep():
    values = np.array([-1, 0, 0.25, 0.5, 1, 2], np.float32)
    np.testing.assert_allclose(smoothstep(0, 1, values), [0, 0, 0.15625, 0.5, 1, 1])
    np.testing.assert_allclose(smoothstep(1, 0, values), [1, 1, 0.84375, 0.5, 0, 0])


def test_waves_have_zero_mean_and_unit_variance():
    waves = Waves.draw(stream(0), (20, 40), channels=2, waves=24)
    values = waves(np.random.default_rng(0).uniform(-500, 500, size=(3, 50, 400)).astype(np.float32))
    assert values.shape == (2, 50, 400)
    np.testing.assert_allclose(values.mean(axis=(1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(values.var(axis=(1, 2)), 1, atol=0.05)


def test_pixel_coordinates_of_an_axial_slice():
    geometry = Slice("axial", (1, 2, 30), angles=(0, 0, 0), shift=(0, 0), width=200, mirrored=False)
    x, y, z = geometry.pixels(2)
    np.testing.assert_allclose(x, [[50, -50], [50, -50]])
    np.testing.assert_allclose(y, [[42, 42], [-58, -58]])
    np.testing.assert_allclose(z, 30)


def test_tilted_slice_still_goes_through_its_point():
    geometry = Slice("coronal", (20, -35, 10), angles=(5, -4, 6), shift=(3, -2), width=240, mirrored=True)
    distance = np.linalg.norm(geometry.pixels(480) - np.array([20, -35, 10])[:, None, None], axis=0)
    assert distance.min() < 0.36


@pytest.mark.parametrize("size", [64, 97, 98, 99])
def test_smooth_fields_are_linear_between_nodes(size):
    geometry = Slice("sagittal", (5, 0, 0), angles=(3, 2, 1), shift=(1, 2), width=240, mirrored=False)
    np.testing.assert_allclose(geometry.smooth(lambda p: p, size), geometry.pixels(size), atol=1e-3)


def test_volume_is_trilinear_in_millimetres():
    volume = Volume(np.arange(8, dtype=np.float32).reshape(2, 2, 2), origin=(-1, 0, 10), spacing=2)
    points = np.array([[-1, 0, 10], [1, 2, 12], [0, 1, 11], [-90, 0, 10]], np.float32).T
    np.testing.assert_allclose(volume(points), [0, 7, 3.5, 0])


def test_blob_distance():
    points = np.array([[5, 0, 0], [20, 0, 0], [-20, 0, 0]], np.float32).T
    np.testing.assert_allclose(Blob("fat", (5, 0, 0), (10, 10, 10)).distance(points), [-10, 5, 15])
    np.testing.assert_allclose(Blob("fat", (5, 0, 0), (10, 10, 10), paired=True).distance(points), [-10, 5, 5])


def test_inner_table_encloses_the_brain():
    volumes = template.load_template()
    brain = np.argwhere(volumes.t1.samples[::4, ::4, ::4] > 60) * 4 + np.array(volumes.t1.origin)
    assert volumes.inner_table(brain.T.astype(np.float32)).max() < 0.5
    assert volumes.inner_table(np.array([[0], [0], [100]], np.float32))[0] > 10


def test_body_maps_there_and_back():
    for index in range(6):
        body = draw_patient(0, index).body
        there = body.to_patient((12, -30, 25))
        np.testing.assert_allclose(there + body.displacement(there[:, None])[:, 0], (12, -30, 25), atol=0.01)


def test_a_tumour_pushes_brain_away_from_its_centre():
    waves = Waves.draw(stream(0), (20, 40), channels=3)
    lesion = Glioma((0, 0, 0), (10, 10, 10), waves, tone=0.7, push=0.5, patches=waves)
    points = np.array([[10, 0, 0], [0, 20, 0], [0, 0, 200]], np.float32).T
    came_from = np.diag(lesion.displaced(points))
    np.testing.assert_allclose(came_from, [5, 20 - 5 * np.exp(-1), 200], rtol=1e-3)
