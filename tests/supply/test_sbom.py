"""The bill of materials."""

from __future__ import annotations

import re

from models.artifact import BUNDLED
from supply.lock import read_lock
from supply.sbom import bill
from tests.conftest import REPOSITORY

LOCK = REPOSITORY / "requirements" / "serve.lock"


def test_every_component_is_listed_once() -> None:
    document = bill(LOCK)
    names = [component["name"] for component in document["components"]]
    assert len(set(names)) == len(names)
    assert {package.name for package in read_lock(LOCK)} | {"d3", "@observablehq/plot"} <= set(names)
    assert {path.parent.name for path in BUNDLED.glob("*/manifest.json")} <= set(names)
    assert len({component["bom-ref"] for component in document["components"]}) == len(names)


def test_the_document_is_cyclonedx() -> None:
    document = bill(LOCK)
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["serialNumber"])
    for component in document["components"]:
        assert component["type"] in ("library", "machine-learning-model")
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest["content"]) for digest in component["hashes"])
        if component["type"] == "library":
            assert re.fullmatch(r"pkg:(pypi|npm)/[^ @]+@[^ @]+", component["purl"])


def test_the_same_files_give_the_same_bill() -> None:
    assert bill(LOCK) == bill(LOCK)
