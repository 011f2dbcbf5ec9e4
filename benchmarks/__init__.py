"""Measurements of Convoy, and helpers that tests share. All servers are local, so proxies are bypassed."""

import os

import models  # noqa: F401 silences the engines' telemetry, before anybody imports them
from convoy.proxies import bypass

os.environ.update(bypass(os.environ))
