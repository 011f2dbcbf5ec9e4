"""The engine store: reuse, damage, concurrent builds, full disks and leftovers."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convoy.errors import ArtifactError
from models.artifact import Artifact
from models.engines.build.builder import build_engine
from models.engines.spec import spec_key
from models.engines.store.store import Store, now
from models.engines.store.stored_engine import EngineManifest, describe_files
from tests.models.engines.orders import engine_spec, quadrants


def recipe(number: int = 0) -> dict[str, Any]:
    return {"engine": "onnxruntime", "precision": "int8", "number": number}


def builder(number: int = 0, content: bytes = b"graph", status: str = "accepted") -> Callable[[Path], EngineManifest]:
    def build(folder: Path) -> EngineManifest:
        (folder / "image.onnx").write_bytes(content)
        files, size = describe_files(folder)
        judgement = {"status": status}
        return EngineManifest(spec_key(recipe(number)), "m", recipe(number), judgement, {"date": now()}, files, size)

    return build


def never(folder: Path) -> EngineManifest:
    raise AssertionError("no build is expected")


def test_a_stored_engine_is_not_built_again(store: Store) -> None:
    key = spec_key(recipe())
    assert store.get(key) is None
    stored = store.obtain(key, builder())
    assert store.obtain(key, never) == stored == store.get(key)
    assert (stored.folder / "image.onnx").read_bytes() == b"graph"
    assert store.entries() == [stored]
    assert (store.verify(), store.leftovers()) == ({}, [])


@pytest.mark.parametrize("broken", ["graph", "manifest", "absent", "nonsense", "other key", "list"])
def test_a_damaged_engine_is_built_again(store: Store, broken: str) -> None:
    key = spec_key(recipe())
    folder = store.obtain(key, builder()).folder
    manifest = folder / "manifest.json"
    match broken:
        case "graph":
            (folder / "image.onnx").write_bytes(b"grapf")
        case "absent":
            (folder / "image.onnx").unlink()
        case "manifest":
            manifest.unlink()
        case "nonsense":
            manifest.write_bytes(b"\xff{")
        case "other key":
            manifest.write_text(manifest.read_text().replace('"number": 0', '"number": 7'))
        case "list":
            manifest.write_text("[]")
    assert list(store.verify()) == [folder]
    assert store.get(key) is None
    assert store.obtain(key, builder()).damage() == ""
    assert store.verify() == {}


def test_a_failed_build_leaves_the_store_unchanged(store: Store) -> None:
    store.obtain(spec_key(recipe()), builder())
    before = sorted(store.root.rglob("*"))

    def fail(folder: Path) -> EngineManifest:
        (folder / "half").write_bytes(b"x")
        raise ArtifactError("not right")

    with pytest.raises(ArtifactError, match="not right"):
        store.obtain(spec_key(recipe(1)), fail)
    after = [path for path in sorted(store.root.rglob("*")) if path.suffix != ".lock"]
    assert after == [path for path in before if path.suffix != ".lock"]


def test_only_one_of_several_processes_builds(store: Store, tmp_path: Path) -> None:
    """Four processes request the same engine at the same time; three wait for the build of the fourth."""
    script = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from models.engines.store.store import Store
        from tests.models.engines.store.test_store import builder, recipe, spec_key

        here = Path({str(tmp_path)!r})

        def build(folder):
            with (here / "builds").open("a") as builds:
                builds.write("x")
            return builder()(folder)

        (here / ("started-" + sys.argv[1])).touch()
        while len(list(here.glob("started-*"))) < 4:
            pass
        print(Store(here / "store").obtain(spec_key(recipe()), build).manifest.key)
    """)
    commands = [[sys.executable, "-c", script, str(number)] for number in range(4)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    keys = {process.communicate(timeout=300)[0].strip() for process in running}
    assert keys == {spec_key(recipe())}
    assert (tmp_path / "builds").read_text() == "x"


def test_a_file_size_limit_is_explained_and_nothing_is_left(store: Store) -> None:
    store.obtain(spec_key(recipe()), builder())
    script = textwrap.dedent(f"""
        import resource
        from pathlib import Path
        from convoy.errors import ArtifactError
        from models.engines.store.store import Store
        from tests.models.engines.store.test_store import builder, recipe, spec_key

        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            Store(Path({str(store.root)!r})).obtain(spec_key(recipe(1)), builder(1, b"x" * 20_000))
        except ArtifactError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert "File too large" in done.stdout
    assert "(ulimit -f), or name another folder with --store" in done.stdout
    assert len(store.entries()) == 1
    assert not list(store.root.glob(".new-*"))


def test_without_disk_space_no_build_starts(store: Store) -> None:
    with pytest.raises(ArtifactError, match=r"no room.*prune"):
        store.obtain(spec_key(recipe()), never, space=1 << 62)


def test_a_full_disk_is_explained(store: Store) -> None:
    def fill(folder: Path) -> EngineManifest:
        Path("/dev/full").write_bytes(b"more than fits")
        return never(folder)

    with pytest.raises(ArtifactError, match=r"no room.*No space left on device.*prune"):
        store.obtain(spec_key(recipe()), fill)
    assert not list(store.root.glob(".new-*"))


def test_a_store_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be used"):
        Store(tmp_path / "file").obtain(spec_key(recipe()), builder())


def test_other_errors_are_not_reported_as_a_full_disk(store: Store) -> None:
    def fail(folder: Path) -> EngineManifest:
        raise OSError(errno.EACCES, "Permission denied")

    with pytest.raises(ArtifactError, match="Permission denied"):
        store.obtain(spec_key(recipe()), fail)


def test_leftovers_of_killed_builds_are_found(store: Store) -> None:
    key = spec_key(recipe())
    store.obtain(key, builder())
    leftover = store.root / f".new-{key}-abc"
    leftover.mkdir()
    assert store.leftovers() == [leftover]

    def build(folder: Path) -> EngineManifest:
        assert folder.parent not in store.leftovers()
        with pytest.raises(ArtifactError, match="being built"):
            store.remove(spec_key(recipe(1)))
        return builder(1)(folder)

    store.obtain(spec_key(recipe(1)), build)
    assert len(store.entries()) == 2
    store.remove(key)
    assert [stored.manifest.key for stored in store.entries()] == [spec_key(recipe(1))]


def test_find_prefers_an_accepted_engine(store: Store, tmp_path: Path) -> None:
    artifact = quadrants(tmp_path / "artifact")
    wanted = engine_spec(artifact, "fp32")
    assert store.find(wanted) is None
    built = build_engine(wanted, store)
    assert store.find(wanted) == built
    assert store.find(engine_spec(artifact, "fp32", "openvino")) is None
    other = {**wanted.recipe, "batches": [1]}

    def unproven(folder: Path) -> EngineManifest:
        manifest = builder(status="unproven")(folder)
        return EngineManifest(spec_key(other), "m", other, manifest.judgement, {"date": "9999"}, manifest.files, 5)

    later = store.obtain(spec_key(other), unproven)
    assert store.find(wanted) == built
    (built.folder / "image.onnx").write_bytes(b"")
    assert store.find(wanted) == later


def test_the_key_depends_on_precision_backend_and_hardware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = quadrants(tmp_path / "artifact")
    keys = {engine_spec(artifact, precision).key for precision in ("fp32", "int8")}
    keys.add(engine_spec(artifact, "int8", "openvino").key)
    monkeypatch.setattr(
        "models.engines.backends.onnxruntime.hardware", lambda: {"machine": "x86_64", "cpu": "another", "flags": []}
    )
    elsewhere = engine_spec(artifact)
    keys.add(elsewhere.key)
    monkeypatch.undo()
    assert len(keys) == 4
    assert engine_spec(artifact).differences(elsewhere.recipe) == ["hardware"]


def test_artifacts_with_different_hashes_have_different_keys(tmp_path: Path) -> None:
    artifact = quadrants(tmp_path / "artifact")
    manifest = artifact.manifest
    changed = Artifact(artifact.folder, type(manifest)(**{**vars(manifest), "files": {"image.onnx": "0"}}))
    assert engine_spec(artifact).differences(engine_spec(changed).recipe) == ["files"]


@pytest.mark.parametrize("wrong", [{}, {"engine": "onnxruntime"}])
def test_a_manifest_without_its_engine_is_refused(wrong: dict[str, str]) -> None:
    manifest = EngineManifest(spec_key(wrong), "m", wrong, {"status": "accepted"}, {"date": now()}, {}, 0)
    with pytest.raises(ArtifactError, match=r"recipe\.(engine|precision) is missing"):
        EngineManifest.from_json(manifest.to_json().encode())
