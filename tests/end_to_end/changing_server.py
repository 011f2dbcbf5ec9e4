"""A server in a process of its own that changes when told: each line on stdin is its next settings as JSON."""

from __future__ import annotations

import json
import sys

from ray import serve as ray_serve

from serve import app
from serve.config import parse_settings


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


app.start(parse_settings(json.loads(sys.argv[1])))
say("ready")
for line in sys.stdin:
    ray_serve.run_many(list(app.applications(parse_settings(json.loads(line)))), wait_for_applications_running=True)
    say("done")
app.stop()
