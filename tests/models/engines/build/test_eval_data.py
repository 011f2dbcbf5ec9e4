from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from convoy.errors import ArtifactError
from models.artifact import BUNDLED, Artifact
from models.engines.build.eval_data import find_eval_source
from tests.artifacts import quadrant_image
from tests.models.engines.orders import quadrants


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


def test_images_without_labels_are_for_calibration(tmp_path: Path) -> None:
    artifact = quadrants(tmp_path / "artifact")
    write_images(tmp_path / "images", 12)
    source = find_eval_source(artifact, tmp_path / "images")
    assert source is not None
    data = source.read()
    assert (len(data.calibrate), len(data.judge), data.labels) == (3, 9, None)


def test_images_in_folders_named_as_labels_are_labelled(tmp_path: Path) -> None:
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
    with pytest.raises(ArtifactError, match=r"broken\.jpg cannot be read"):
        source.read()


def test_validation_data_is_identified_without_reading_it(tmp_path: Path) -> None:
    assert find_eval_source(quadrants(tmp_path / "artifact")) is None
    digits, objects = (find_eval_source(Artifact.load(BUNDLED / name)) for name in ("lenet5-mnist", "resnet20-cifar10"))
    assert digits is not None
    assert objects is not None
    assert digits.identity != objects.identity
