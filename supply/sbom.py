"""`python -m supply.sbom LOCK`: writes a bill of materials in CycloneDX 1.6; the same files give the same document.

It lists the locked packages, the chart libraries of the web page and the bundled models, each with its hashes.
Why not cyclonedx-py: it leaves out the chart libraries and the models.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import convoy
from models.artifact import BUNDLED, MANIFEST, Artifact
from supply.lock import Pinned, read_lock

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ROOT / "serve" / "http" / "page" / "libraries"
NAME = "convoy-serve"
VENDORED = {"d3.min.js": ("d3", "ISC"), "plot.umd.min.js": ("@observablehq/plot", "ISC")}

Component = dict[str, Any]


def bill(lock: Path) -> dict[str, Any]:
    """The bill of materials of an installation from this lock file."""
    components = [*map(_package, read_lock(lock)), *_libraries(), *_models()]
    content = json.dumps(components, sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {"component": _component("application", NAME, convoy.__version__, f"pkg:pypi/{NAME}")},
        "components": components,
    }


def _package(package: Pinned) -> Component:
    component = _component("library", package.name, package.version, f"pkg:pypi/{package.name}", package.hashes)
    licence = _licence(package.name)
    return component | ({"licenses": [licence]} if licence else {})


def _licence(name: str) -> dict[str, Any] | None:
    """The license in an installed package's metadata; None if it is not installed or the field is missing or a full text."""
    try:
        fields = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    if "License-Expression" in fields:
        return {"expression": fields["License-Expression"]}
    text = fields["License"] if "License" in fields else ""  # noqa: SIM401 `get` of a message is untyped
    return {"license": {"name": text}} if text and len(text) < 60 and "\n" not in text else None


def _libraries() -> Iterator[Component]:
    for file, (name, licence) in VENDORED.items():
        content = (LIBRARIES / file).read_bytes()
        version = re.search(rb"v?(\d+\.\d+\.\d+)", content[:300])
        assert version is not None, f"{file} has no version in its header"
        purl = f"pkg:npm/{name.replace('@', '%40')}"
        component = _component("library", name, version[1].decode(), purl, (hashlib.sha256(content).hexdigest(),))
        yield component | {"licenses": [{"license": {"id": licence}}]}


def _models() -> Iterator[Component]:
    for path in sorted(BUNDLED.glob(f"*/{MANIFEST}")):
        manifest = Artifact.load(path.parent).manifest
        digest = hashlib.sha256(path.read_bytes()).hexdigest()  # the manifest holds the hashes of the files
        component = _component("machine-learning-model", path.parent.name, digest[:12], "", (digest,))
        yield component | {"licenses": [{"license": {"name": manifest.licence}}]}


def _component(kind: str, name: str, version: str, purl: str, hashes: tuple[str, ...] = ()) -> Component:
    component: Component = {"type": kind, "bom-ref": f"{kind}/{name}@{version}", "name": name, "version": version}
    if purl:
        component["purl"] = f"{purl}@{version}"
    if hashes:
        component["hashes"] = [{"alg": "SHA-256", "content": content} for content in hashes]
    return component


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("lock", type=Path, help="lock file with hashes, in pip's format")
    print(json.dumps(bill(parser.parse_args().lock), indent=2))


if __name__ == "__main__":
    main()
