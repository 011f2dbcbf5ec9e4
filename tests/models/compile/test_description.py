"""Descriptions of imported networks: labels and preprocessing, from options and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convoy.errors import ArtifactError
from models.compile.description import Description, check_labels, read_description, read_labels


def test_options_take_precedence_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"labels": ["a", "b"], "resize": 40, "mean": [0, 0.5, 1]}))
    description = Description(resize=36).over(read_description(path))
    assert description == Description(("a", "b"), 36, None, (0, 0.5, 1))


def test_defaults_are_those_of_imagenet() -> None:
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
def test_an_invalid_description_is_refused_with_the_reason(tmp_path: Path, document: Any, words: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=words):
        read_description(path)


def test_label_files_are_read_and_checked(tmp_path: Path) -> None:
    assert len(read_labels("imagenet1k")) == 1000
    with pytest.raises(ArtifactError, match="imagenet1k"):
        read_labels(str(tmp_path / "absent"))
    (tmp_path / "l.txt").write_text("a\n\nb\n")
    with pytest.raises(ArtifactError, match="empty line"):
        read_labels(str(tmp_path / "l.txt"))


def test_an_empty_mean_or_std_is_refused() -> None:
    for wrong in (Description(mean=()), Description(std=())):
        with pytest.raises(ArtifactError, match="3 channels"):
            wrong.steps(3, 224)


def test_an_empty_label_is_refused() -> None:
    with pytest.raises(ArtifactError, match="a label is empty"):
        check_labels(("cat", " "), 2)
