"""The Dockerfiles: the linter's findings, and the content of the images."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "images"
DOCKERFILES = sorted(FOLDER.glob("*.Dockerfile"))
TAGGED = re.compile(r"^[a-z0-9./-]+:[0-9]+\.[0-9]+\.[0-9]+[a-z0-9.-]*$")

each = pytest.mark.parametrize("file", DOCKERFILES, ids=[file.stem for file in DOCKERFILES])


def instructions(file: Path) -> list[tuple[str, str]]:
    """Every instruction and its arguments, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", file.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def stages(file: Path) -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for instruction in instructions(file):
        if instruction[0] == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def lock(file: Path) -> str:
    names: set[str] = set(re.findall(r"requirements/[a-z-]+\.lock", file.read_text()))
    (name,) = names
    return (REPOSITORY / name).read_text()


def test_there_are_images_for_cpu_and_gpu() -> None:
    assert [file.stem for file in DOCKERFILES] == ["cpu", "gpu"]


@each
def test_the_linter_finds_nothing(file: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [str(hadolint), "--failure-threshold", "style", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@each
def test_base_images_are_pinned_to_a_full_version(file: Path) -> None:
    for stage in stages(file):
        assert TAGGED.match(stage[0][1].partition(" AS ")[0])


@each
def test_the_runtime_stage_copies_the_build_and_installs_nothing(file: Path) -> None:
    *before, last = stages(file)
    assert before
    assert [words for name, words in last if name == "COPY"] == ["--from=build /opt/convoy /opt/convoy"]
    assert not any(word in words for name, words in last if name == "RUN" for word in ("pip", "apt", "gcc", "curl"))


@each
def test_the_runtime_does_not_run_as_root(file: Path) -> None:
    users = [words for name, words in stages(file)[-1] if name == "USER"]
    assert users == ["1000:1000"]  # the same user as in the manifests
    rayservice = (REPOSITORY / "deploy" / "kubernetes" / "base" / "rayservice.yaml").read_text()
    assert "runAsUser: 1000" in rayservice


@each
def test_images_contain_no_torch_and_every_package_has_a_hash(file: Path) -> None:
    text = lock(file)
    names = re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE)
    assert "ray" in names
    assert not {"torch", "torchvision", "onnxscript", "triton"} & set(names)
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=[a-z0-9])", text))


def test_each_image_has_one_onnx_runtime() -> None:
    found = {file.stem: re.findall(r"^(onnxruntime[a-z-]*)==", lock(file), re.MULTILINE) for file in DOCKERFILES}
    assert found == {"cpu": ["onnxruntime"], "gpu": ["onnxruntime-gpu"]}


@each
def test_copied_files_exist_and_are_not_ignored(file: Path) -> None:
    kept = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name, words in stages(file)[0]:
        if name == "COPY":
            for source in words.split()[:-1]:
                assert (REPOSITORY / source).exists(), source
                assert source.partition("/")[0] in kept, source


@each
def test_the_health_check_of_an_image_asks_the_gateway(file: Path) -> None:
    (check,) = [words for name, words in stages(file)[-1] if name == "HEALTHCHECK"]
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    command = compose["services"]["server"]["healthcheck"]["test"]
    assert [*yaml.safe_load(check.partition("CMD ")[2])] == command[1:]
