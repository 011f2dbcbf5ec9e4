"""Writing artifacts: files of the user are never touched, and the old artifact stays until the new one is complete."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from convoy.errors import ArtifactError
from models import artifact_folder
from models.artifact import IMAGE_MODEL, MANIFEST, WEIGHTS, Artifact
from models.artifact_folder import new_artifact
from tests.artifacts import write_artifact
from tests.models.onnx_nets import write_net


def contents(folder: Path) -> dict[str, bytes | None]:
    """All paths below a folder, and the content of files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def install(out: Path, name: str, *inputs: Path) -> None:
    with new_artifact(out, inputs) as folder:
        folder.rmdir()
        write_artifact(folder, name)


def users_weights(folder: Path) -> Path:
    write_net(folder / "net.onnx")
    (folder / WEIGHTS).write_bytes(b"months of training")
    return folder


def users_graph(folder: Path) -> Path:
    (folder / "mine").mkdir()
    (folder / "mine" / IMAGE_MODEL).write_bytes(b"mine")
    return folder / "mine"


def another_manifest(folder: Path) -> Path:
    (folder / "web").mkdir()
    (folder / "web" / MANIFEST).write_text('{"name": "a web application"}')
    return folder / "web"


def weights_in_an_artifact(folder: Path) -> Path:
    """The artifact of the tests has no weights.bin."""
    (write_artifact(folder / "a", "a") / WEIGHTS).write_bytes(b"months of training")
    return folder / "a"


def file(folder: Path) -> Path:
    (folder / "file").write_bytes(b"mine")
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return file(folder) / "out"


def link_to_a_users_folder(folder: Path) -> Path:
    (folder / "link").symlink_to(users_graph(folder))
    return folder / "link"


@pytest.mark.parametrize(
    "make",
    [users_weights, users_graph, another_manifest, weights_in_an_artifact, file, below_a_file, link_to_a_users_folder],
)
def test_a_folder_without_an_artifact_of_ours_is_refused(make: Callable[[Path], Path], tmp_path: Path) -> None:
    out = make(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ArtifactError, match="name another folder with --out"):
        install(out, "new")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("place", ["plain", "relative", "folder link", "file link", "out link", "hard link"])
def test_a_folder_that_holds_the_input_is_refused(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_artifact(tmp_path / "out", "old")
    source = out / "net.onnx"
    write_net(tmp_path / "elsewhere.onnx" if place == "file link" else source)
    if place == "relative":
        monkeypatch.chdir(tmp_path)
        source = Path("out/../out/net.onnx")
    elif place == "folder link":
        (tmp_path / "link").symlink_to(out)
        source = tmp_path / "link" / "net.onnx"
    elif place == "file link":
        source.symlink_to(tmp_path / "elsewhere.onnx")
    elif place == "out link":
        (tmp_path / "link").symlink_to(out)
        out = tmp_path / "link"
    elif place == "hard link":  # another name of the same file: replacing the folder cannot change it
        os.link(source, tmp_path / "other.onnx")
        source, kept = tmp_path / "other.onnx", source.read_bytes()
        install(out, "new", source)
        assert source.read_bytes() == kept == (out / "net.onnx").read_bytes()
        return
    before = contents(tmp_path)
    with pytest.raises(ArtifactError, match=r"holds .*net\.onnx, which the artifact is made from"):
        install(out, "new", source)
    assert contents(tmp_path) == before


def test_the_working_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out := write_artifact(tmp_path / "out", "old") / "notes").mkdir()
    monkeypatch.chdir(out)
    with pytest.raises(ArtifactError, match="working directory"):
        install(Path(".."), "new")
    assert Artifact.load(tmp_path / "out").manifest.name == "old"


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("complete", [True, False])
def test_an_earlier_artifact_is_replaced_and_other_files_stay(link: bool, complete: bool, tmp_path: Path) -> None:
    old = write_artifact(tmp_path / "old", "old")
    (old / "NOTICE").write_text("the licence of the weights")
    (old / "photos").mkdir()
    (old / "photos" / "one.png").write_bytes(b"png")
    (old / "latest").symlink_to("photos")
    old.chmod(0o750)
    if not complete:
        (old / IMAGE_MODEL).write_bytes(b"damaged")
    out = old
    if link:
        (out := tmp_path / "link").symlink_to(old)
    install(out, "new")
    assert Artifact.load(out).manifest.name == "new"
    assert out.is_symlink() is link
    assert (old / "NOTICE").read_text() == "the licence of the weights"
    assert (old / "latest" / "one.png").read_bytes() == b"png"
    assert (old / "latest").is_symlink()
    assert old.stat().st_mode & 0o777 == 0o750
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_or_absent_folder_is_filled(exists: bool, tmp_path: Path) -> None:
    out = tmp_path / "some" / "out"
    if exists:
        out.mkdir(parents=True)
    install(out, "new")
    assert Artifact.load(out).manifest.name == "new"


def test_a_failure_changes_nothing(tmp_path: Path) -> None:
    out = write_artifact(tmp_path / "out", "old")
    before = contents(tmp_path)

    def interrupted() -> None:
        with new_artifact(out) as folder:
            (folder / MANIFEST).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents(tmp_path) == before


KILLED = """
import os, pathlib, signal, sys
from models.artifact_folder import new_artifact
with new_artifact(pathlib.Path(sys.argv[1])) as folder:
    (folder / "image.onnx").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
SMALL_FILES = """
import pathlib, resource, sys
from models.compile.description import Description
from models.importing.from_onnx import import_onnx
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
import_onnx("new", pathlib.Path(sys.argv[2]), Description(("a", "b", "c", "d")), pathlib.Path(sys.argv[1]))
"""


@pytest.mark.parametrize("exists", [True, False])
def test_a_killed_process_leaves_the_old_artifact(exists: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if exists:
        write_artifact(out, "old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    if exists:
        assert Artifact.load(out).manifest.name == "old"
    else:
        assert not out.exists()


def test_a_file_size_limit_leaves_the_old_artifact_and_is_explained(tmp_path: Path) -> None:
    out = write_artifact(tmp_path / "out", "old")
    net = write_net(tmp_path / "net.onnx")
    before = contents(tmp_path)
    command = [sys.executable, "-c", SMALL_FILES, str(out), str(net)]
    done = subprocess.run(command, check=False, timeout=120, capture_output=True, text=True)
    assert "ArtifactError" in done.stderr
    assert "File too large" in done.stderr
    assert "(ulimit -f), or name another folder with --out" in done.stderr
    assert contents(tmp_path) == before


def test_a_failure_leaves_no_parent_folders(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a classifier"), new_artifact(tmp_path / "a.txt" / "some" / "out"):
        raise ArtifactError("it is not a classifier")
    assert contents(tmp_path) == {}


def test_a_file_name_that_is_too_long_leaves_no_parent_folders(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"File name too long.*; name another folder with --out"):
        install(tmp_path / "a" / ("b" * 300) / "out", "new")
    assert contents(tmp_path) == {}


def test_files_that_others_write_meanwhile_stay(tmp_path: Path) -> None:
    def refused() -> None:
        with new_artifact(tmp_path / "some" / "out"):
            (tmp_path / "some" / "theirs").write_bytes(b"theirs")
            raise ArtifactError("refused")

    with pytest.raises(ArtifactError, match="refused"):
        refused()
    assert contents(tmp_path) == {"some": None, "some/theirs": b"theirs"}


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match=r"No space left on device.*; free some room, or name another"),
        new_artifact(tmp_path / "out"),
    ):
        Path("/dev/full").write_bytes(b"more than fits")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EDQUOT, "; free some room, or name another folder with --out"),
        (errno.EACCES, "; make it writable, or name another folder with --out"),
        (errno.EROFS, "; make it writable, or name another folder with --out"),
        (errno.EIO, "; name another folder with --out"),
    ],
)
def test_the_remedy_depends_on_the_error(code: int, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught, new_artifact(tmp_path / "out"):
        raise OSError(code, os.strerror(code))
    assert os.strerror(code) in str(caught.value)
    assert str(caught.value).endswith(remedy)


def test_a_reader_finds_an_artifact_at_all_times(tmp_path: Path) -> None:
    out = write_artifact(tmp_path / "out", "old")
    missed: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if not (out / MANIFEST).exists():
                missed.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(50):
            install(out, f"new{number}")
    finally:
        done.set()
        watcher.join()
    assert missed == []


def test_the_folder_is_replaced_without_an_atomic_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(first: Path, second: Path) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(artifact_folder, "exchange", fail)
    out = write_artifact(tmp_path / "out", "old")
    install(out, "new")
    assert Artifact.load(out).manifest.name == "new"
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(FileNotFoundError):
        artifact_folder._replace(tmp_path / "scratch" / "absent", out)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(FileNotFoundError):
        artifact_folder._replace(tmp_path / "scratch" / "absent", out)
    assert Artifact.load(out).manifest.name == "new"
