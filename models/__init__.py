"""What is computed: architectures, training, export, artifacts, engines. Knows neither Ray nor HTTP.

Whoever imports it, and every process that they start, tells nobody: libraries that would report how they are used are silenced
here, since this runs before any of them is imported.
"""

from __future__ import annotations

import os
import sys

TELEMETRY_OFF = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime writes a device id and queues events for upload when it is imported
    "HF_HUB_DISABLE_TELEMETRY": "1",  # what timm fetches weights with
}
os.environ.update(TELEMETRY_OFF)

# OpenVINO has no variable for it and reports each import to Google Analytics, unless this package is not there.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
