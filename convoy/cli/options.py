"""Options that several commands share."""

from __future__ import annotations

import click

server_option = click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="The server.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON for scripts.")
