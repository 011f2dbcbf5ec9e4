"""`python -m supply.sbom LOCK`: a bill of materials in CycloneDX 1.6, the same for the same files.

In it are the locked packages, the page's chart libraries and the bundled models, each with its hashes.
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
    """The document of what an installation by this lock runs."""
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
    one = _component("library", package.name, package.version, f"pkg:pypi/{package.name}", package.hashes)
    licence = _licence(package.name)
    return one | ({"licenses": [licence]} if licence else {})


def _licence(name: str) -> dict[str, Any] | None:
    """What an installed package says of itself; None where it is not installed or says nothing short."""
    try:
        told = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    if "License-Expression" in told:
        return {"expression": told["License-Expression"]}
    text = told["License"] if "License" in told else ""  # noqa: SIM401 a message has no get that is typed
    return {"license": {"name": text}} if text and len(text) < 60 and "\n" not in text else None


def _libraries() -> Iterator[Component]:
    for file, (name, licence) in VENDORED.items():
        content = (LIBRARIES / file).read_bytes()
        version = re.search(rb"v?(\d+\.\d+\.\d+)", content[:300])
        assert version is not None, f"{file} does not say its version"
        purl = f"pkg:npm/{name.replace('@', '%40')}"
        one = _component("library", name, version[1].decode(), purl, (hashlib.sha256(content).hexdigest(),))
        yield one | {"licenses": [{"license": {"id": licence}}]}


def _models() -> Iterator[Component]:
    for path in sorted(BUNDLED.glob(f"*/{MANIFEST}")):
        manifest = Artifact.load(path.parent).manifest
        digest = hashlib.sha256(path.read_bytes()).hexdigest()  # the manifest holds the hashes of the files
        one = _component("machine-learning-model", path.parent.name, digest[:12], "", (digest,))
        yield one | {"licenses": [{"license": {"name": manifest.licence}}]}


def _component(kind: str, name: str, version: str, purl: str, hashes: tuple[str, ...] = ()) -> Component:
    one: Component = {"type": kind, "bom-ref": f"{kind}/{name}@{version}", "name": name, "version": version}
    if purl:
        one["purl"] = f"{purl}@{version}"
    if hashes:
        one["hashes"] = [{"alg": "SHA-256", "content": content} for content in hashes]
    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("lock", type=Path)
    print(json.dumps(bill(parser.parse_args().lock), indent=2))


if __name__ == "__main__":
    main()
