"""A store with a URL, on fsspec's local and in-memory file systems."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from convoy.errors import ConfigError
from models.engines.build.builder import build_engine
from models.engines.spec import spec_key
from models.engines.store.remote_store import RemoteStore
from models.engines.store.store import Store, open_store
from tests.models.engines.orders import engine_spec, quadrants
from tests.models.engines.store.test_store import builder, never, recipe

KEY = spec_key(recipe())


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/shared/engines"
        return
    yield "memory://engines"
    files = fsspec.filesystem("memory")
    files.rm("/engines", recursive=True)


def node(folder: Path, url: str) -> Store:
    """The store of one machine."""
    return Store(folder, RemoteStore(url))


def files_of(url: str) -> tuple[Any, str]:
    files, root = fsspec.core.url_to_fs(url)
    return files, f"{root}/{KEY}"


def test_an_engine_built_by_one_machine_is_fetched_by_another(tmp_path: Path, url: str) -> None:
    first = node(tmp_path / "a", url).obtain(KEY, builder())
    second = node(tmp_path / "b", url)
    stored = second.obtain(KEY, never)
    assert (stored.manifest, stored.damage()) == (first.manifest, "")
    assert (stored.folder / "image.onnx").read_bytes() == b"graph"
    files, folder = files_of(url)
    files.rm(folder, recursive=True)
    assert second.obtain(KEY, never) == stored  # from the local folder
    files.makedirs(folder)  # the fixture deletes it


@pytest.mark.parametrize("broken", ["graph", "absent", "manifest", "shapeless", "outside", "other key"])
def test_a_damaged_remote_engine_is_built_again_and_replaced(
    tmp_path: Path, url: str, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    node(tmp_path / "a", url).obtain(KEY, builder())
    files, folder = files_of(url)
    manifest = files.cat_file(f"{folder}/manifest.json")
    match broken:
        case "graph":
            files.pipe_file(f"{folder}/image.onnx", b"grapf")
        case "absent":
            files.rm_file(f"{folder}/image.onnx")
        case "manifest":
            files.pipe_file(f"{folder}/manifest.json", manifest[: len(manifest) // 2])
        case "shapeless":
            files.pipe_file(f"{folder}/manifest.json", manifest.replace(b'"status"', b'"state"'))
        case "outside":
            files.pipe_file(f"{folder}/manifest.json", manifest.replace(b"image.onnx", b"../../../mine"))
        case "other key":
            files.pipe_file(f"{folder}/manifest.json", manifest.replace(b'"number": 0', b'"number": 7'))
    second = node(tmp_path / "b", url)
    with caplog.at_level(logging.WARNING):
        assert second.obtain(KEY, builder(content=b"again")).damage() == ""
    assert caplog.records
    assert sorted(path.name for path in second.root.iterdir()) == [".locks", KEY]
    third = node(tmp_path / "c", url).obtain(KEY, never)
    assert (third.folder / "image.onnx").read_bytes() == b"again"


def test_an_engine_for_the_spec_is_found_remotely(tmp_path: Path, url: str) -> None:
    wanted = engine_spec(quadrants(tmp_path / "artifact"), "fp32")
    built = build_engine(wanted, node(tmp_path / "a", url))
    second = node(tmp_path / "b", url)
    found = second.find(wanted)
    assert found is not None
    assert found.manifest == built.manifest
    assert second.find(engine_spec(quadrants(tmp_path / "artifact"), "fp32", "openvino")) is None


def test_an_unreachable_store_only_logs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    store = node(tmp_path / "a", f"file://{tmp_path}/file/engines")
    with caplog.at_level(logging.WARNING):
        assert store.find(engine_spec(quadrants(tmp_path / "artifact"), "fp32")) is None
        assert store.obtain(KEY, builder()).damage() == ""
    assert "the engine stays on this machine" in caplog.text


def test_folders_and_urls_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOY_CACHE", str(tmp_path))
    assert open_store().root == open_store("memory://engines").root == tmp_path / "engines"
    assert open_store(str(tmp_path / "own")).location == str(tmp_path / "own")
    assert open_store("memory://engines").location == "memory://engines"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="engines: nowhere://engines cannot be opened: Protocol not known"):
        open_store("nowhere://engines")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigError, match="s3fs"):
        open_store("s3://bucket/engines")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigError, match=r"needs fsspec; install it with: pip install 'convoy-serve\[store\]'"):
        open_store("s3://bucket/engines")
