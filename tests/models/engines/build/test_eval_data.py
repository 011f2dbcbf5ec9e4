"""Evaluation data: from a data set's validation set, or from a folder of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoy.errors import ArtifactError, InvalidInput
from convoy.image_files import SUFFIX_LIST, SUFFIXES
from models.artifact import BUNDLED, Artifact, Preprocessing
from models.engines.build.eval_data import find_eval_source
from models.images.decoder import Decoder
from tests.artifacts import quadrant_image
from tests.models.engines.orders import quadrants
from tests.pictures import CROPPED, GREY, WHOLE, oriented, save, scene, variants


def write_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(quadrant_image(number % 4)).save(folder / f"{number:02}.png")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    artifact = quadrants(tmp_path / "artifact")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none")
    for folder in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(ArtifactError, match="holds no images to calibrate on: put some hundred there"):
            find_eval_source(artifact, folder)


def test_images_in_the_folder_itself_have_no_labels(tmp_path: Path) -> None:
    artifact = quadrants(tmp_path / "artifact")
    write_images(tmp_path / "images", 12)
    source = find_eval_source(artifact, tmp_path / "images")
    assert source is not None
    data = source.read()
    assert (len(data.calibrate), len(data.judge), data.labels) == (3, 9, None)


def test_images_in_folders_named_after_labels_are_labelled(tmp_path: Path) -> None:
    artifact = quadrants(tmp_path / "artifact")
    write_images(tmp_path / "images" / "top right", 4)
    write_images(tmp_path / "images" / "bottom left", 4)
    source = find_eval_source(artifact, tmp_path / "images")
    assert source is not None
    data = source.read()
    assert data.labels is not None
    assert data.labels.tolist() == [1, 1, 1, 2, 2, 2]
    before = source.identity
    Image.fromarray(quadrant_image(1, 90)).save(tmp_path / "images" / "top right" / "00.png")
    after = find_eval_source(artifact, tmp_path / "images")
    assert after is not None
    assert after.identity != before


def test_a_file_that_is_not_an_image_is_named(tmp_path: Path) -> None:
    artifact = quadrants(tmp_path / "artifact")
    write_images(tmp_path / "images", 3)
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no image")
    source = find_eval_source(artifact, tmp_path / "images")
    assert source is not None
    with pytest.raises(ArtifactError, match=r"broken\.jpg: not an image this server reads"):
        source.read()


def refused_files() -> dict[str, bytes]:
    """Files with an image's suffix that Pillow opens and the server refuses."""
    picture = scene(32, 32)
    return {
        "integers.tif": save(picture.convert("I"), "TIFF"),
        "floats.tiff": save(picture.convert("F"), "TIFF"),
        "group4.tif": save(picture.convert("1"), "TIFF", compression="group4"),
        "jpeg2000.jpg": save(picture, "JPEG2000"),
        "text.ppm": b"P3 2 2 255 " + b"10 " * 12,
        "truncated.png": save(picture, "PNG")[:-20],
    }


@pytest.mark.parametrize("name", refused_files())
def test_calibration_refuses_what_the_server_refuses_and_names_the_file(tmp_path: Path, name: str) -> None:
    artifact = quadrants(tmp_path / "artifact")
    write_images(tmp_path / "images", 3)
    body = refused_files()[name]
    (tmp_path / "images" / name).write_bytes(body)
    with pytest.raises(InvalidInput) as refused:
        Decoder(artifact.manifest.preprocessing).decode(body)
    source = find_eval_source(artifact, tmp_path / "images")
    assert source is not None
    with pytest.raises(ArtifactError) as error:
        source.read()
    assert name in str(error.value)
    assert str(refused.value) in str(error.value)


def test_an_image_with_too_many_pixels_is_named(tmp_path: Path) -> None:
    artifact = quadrants(tmp_path / "artifact")
    write_images(tmp_path / "images", 3)
    (tmp_path / "images" / "huge.pbm").write_bytes(b"P4 10000 6000\n")
    source = find_eval_source(artifact, tmp_path / "images")
    assert source is not None
    with pytest.raises(ArtifactError, match=r"huge\.pbm: image of 10000 x 6000 pixels"):
        source.read()


def suffixed_files() -> dict[str, bytes]:
    """An image for every suffix that is read."""
    formats = {"jpg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "tif": "TIFF", "pbm": "PPM", "pgm": "PPM", "pnm": "PPM"}
    modes = {"pbm": "1", "pgm": "L"}
    names = sorted(suffix.removeprefix(".") for suffix in SUFFIXES)
    return {
        f"suffix.{name}": save(scene(90, 70).convert(modes.get(name, "RGB")), formats.get(name, name.upper()))
        for name in names
    }


@pytest.mark.parametrize("wanted", [CROPPED, GREY, WHOLE], ids=["cropped", "grey", "whole"])
def test_rows_equal_those_of_the_server_for_every_suffix_and_pixel_format(
    tmp_path: Path, wanted: Preprocessing
) -> None:
    artifact = quadrants(tmp_path / "artifact")
    artifact = replace(artifact, manifest=replace(artifact.manifest, preprocessing=wanted))
    bodies = suffixed_files()
    bodies |= {
        f"{kind}.png": body for kind, body in variants().items()
    }  # the suffix decides only whether a file is read
    bodies |= {
        f"turned {turn} {form}.{form}": oriented(scene(90, 70), form, turn)
        for turn in range(1, 9)
        for form in ("jpeg", "png", "webp", "tiff")
    }
    (tmp_path / "images").mkdir()
    for name, body in bodies.items():
        (tmp_path / "images" / name).write_bytes(body)
    source = find_eval_source(artifact, tmp_path / "images")
    assert source is not None
    data = source.read()
    decoder = Decoder(wanted)
    served = np.stack([decoder.decode(bodies[name]) for name in sorted(bodies)])
    calibrates = np.arange(len(served)) % 4 == 0
    np.testing.assert_array_equal(data.calibrate, served[calibrates])
    np.testing.assert_array_equal(data.judge, served[~calibrates])


def test_files_that_are_skipped_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    artifact = quadrants(tmp_path / "artifact")
    write_images(tmp_path / "images", 4)
    (tmp_path / "images" / "photo.heic").touch()
    (tmp_path / "images" / "more").mkdir()
    find_eval_source(artifact, tmp_path / "images")
    assert [record.getMessage().removeprefix(f"{tmp_path}/images/") for record in caplog.records] == [
        "more is skipped: no label of quadrants has this name",
        f"photo.heic is skipped: no image by its suffix ({SUFFIX_LIST})",
    ]


def test_files_that_are_skipped_beside_labelled_ones_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = quadrants(tmp_path / "artifact")
    write_images(tmp_path / "images" / "top right", 4)
    write_images(tmp_path / "images" / "somewhere", 1)
    (tmp_path / "images" / "bottom left").mkdir()
    (tmp_path / "images" / "top right" / "notes.txt").touch()
    (tmp_path / "images" / "loose.PNG").touch()
    find_eval_source(artifact, tmp_path / "images")
    assert [record.getMessage().removeprefix(f"{tmp_path}/images/") for record in caplog.records] == [
        "loose.PNG is skipped: it is in no folder of a label",
        "somewhere is skipped: no label of quadrants has this name",
        f"top right/notes.txt is skipped: no image by its suffix ({SUFFIX_LIST})",
    ]


def test_thousands_of_skipped_files_are_summarised_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path / "images", 4)
    for number in range(1000):
        (tmp_path / "images" / f"{number}\nERROR \x1b[31m.txt").touch()
    find_eval_source(quadrants(tmp_path / "artifact"), tmp_path / "images")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[-1] == "980 more files and folders are skipped"
    assert len(lines) == 21
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("label", [".", "..", "", "\0", "x" * 300])
def test_a_label_cannot_name_a_path_outside_of_the_folder(tmp_path: Path, label: str) -> None:
    artifact = quadrants(tmp_path / "artifact")
    write_images(tmp_path / "outside" / "images", 4)
    write_images(tmp_path / "outside" / "more", 4)
    Image.fromarray(quadrant_image(0)).save(tmp_path / "outside" / "loose.png")
    odd = Artifact(artifact.folder, replace(artifact.manifest, labels=(label, str(tmp_path / "outside" / "more"))))
    source = find_eval_source(odd, tmp_path / "outside" / "images")
    assert source is not None
    assert source.name == "4 images without labels of the folder images"


def test_nothing_is_logged_if_all_files_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path / "images", 4)
    find_eval_source(quadrants(tmp_path / "artifact"), tmp_path / "images")
    assert not caplog.records


def test_validation_sets_are_identified_without_reading_them(tmp_path: Path) -> None:
    assert find_eval_source(quadrants(tmp_path / "artifact")) is None
    digits, objects = (find_eval_source(Artifact.load(BUNDLED / name)) for name in ("lenet5-mnist", "resnet20-cifar10"))
    assert digits is not None
    assert objects is not None
    assert digits.identity != objects.identity
