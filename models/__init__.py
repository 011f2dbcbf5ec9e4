"""Architectures, training, export, artifacts and engines. Independent of Ray and HTTP.

Importing this package turns off the usage telemetry of the libraries below, for this process and its children. It happens
here because this module runs before any of those libraries is imported.
"""

from __future__ import annotations

import os
import sys

TELEMETRY_OFF = {
    "ORT_DISABLE_TELEMETRY": "1",  # on import, ONNX Runtime writes a device id and queues events for upload
    "HF_HUB_DISABLE_TELEMETRY": "1",  # timm fetches weights through this library
}
os.environ.update(TELEMETRY_OFF)

# OpenVINO has no such variable: it reports each import to Google Analytics, unless this package cannot be imported.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
