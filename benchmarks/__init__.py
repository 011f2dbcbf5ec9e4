"""Measurements of Convoy, and what tests use of them. Their servers are on this machine, so no proxy lies between."""

import os

import models  # noqa: F401 silences the engines' telemetry, before anybody imports them
from convoy.proxies import bypass

os.environ.update(bypass(os.environ))
