from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convoy.errors import ArtifactError
from models.compile.description import Description, check_labels, read_description, read_labels


def test_options_go_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"labels": ["a", "b"], "resize": 40, "mean": [0, 0.5, 1]}))
    said = Description(resize=36).over(read_description(path))
    assert said == Description(("a", "b"), 36, None, (0, 0.5, 1))


def test_defaults_are_imagenets() -> None:
    steps = Description().steps(3, 224)
    assert (steps.resize, steps.mean[0]) == (256, 0.485)
    assert Description().steps(3, 32).resize == 32


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"lables": []}, "did you mean 'labels'"),
        ({"labels": "a"}, r"d\.json: labels: input should be .* array, not 'a'"),
        ({"labels": [1]}, r"labels\.0: input should be a valid string, not 1"),
        ({"mean": ["a"]}, r"mean\.0: input should be a valid number, not 'a'"),
        ({"std": [True]}, r"std\.0: input should be a valid number, not True"),
        ({"size": 0}, "size: input should be greater than 0, not 0"),
        ({"size": True}, "size: input should be a valid integer, not True"),
        ({"resize": 1.0}, "resize: input should be a valid integer, not 1.0"),
        ([], "input should be an object"),
    ],
)
def test_a_description_that_cannot_be_read(tmp_path: Path, document: Any, words: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=words):
        read_description(path)


def test_labels(tmp_path: Path) -> None:
    assert len(read_labels("imagenet1k")) == 1000
    with pytest.raises(ArtifactError, match="imagenet1k"):
        read_labels(str(tmp_path / "absent"))
    (tmp_path / "l.txt").write_text("a\n\nb\n")
    with pytest.raises(ArtifactError, match="empty line"):
        read_labels(str(tmp_path / "l.txt"))


def test_empty_lists_are_not_taken_for_the_defaults() -> None:
    for wrong in (Description(mean=()), Description(std=())):
        with pytest.raises(ArtifactError, match="3 channels"):
            wrong.steps(3, 224)


def test_an_empty_label_is_refused() -> None:
    with pytest.raises(ArtifactError, match="a label is empty"):
        check_labels(("cat", " "), 2)
