"""Measurements of Convoy, and helpers that tests share. All servers are local, so proxies are bypassed."""

import os

import models  # noqa: F401 turns off the engines' telemetry before they are imported
from convoy.proxies import bypass

os.environ.update(bypass(os.environ))
