"""`convoy keys`: makes API keys. A key is printed or written once and not stored anywhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from convoy.cli.options import server_option
from convoy.cli.server import local_key_file
from convoy.credentials import digest, new_key
from convoy.errors import InvalidInput, NotFound


@click.group()
def keys() -> None:
    """Make API keys, and find the key of the local server."""


@keys.command()
@click.argument("name")
@click.option("--model", "-m", "models", multiple=True, help="Model that the key may call; repeatable.  [default: all]")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests per second in each gateway.")
@click.option("--concurrency", type=click.IntRange(1), help="Concurrent requests in each gateway.")
@click.option(
    "--admin", is_flag=True, help="Allow changing models and experiments, and reading statistics of all traffic."
)
@click.option("--metrics", is_flag=True, help="Allow reading metrics.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the key to this new file instead of printing it.",
)
def new(name: str, out: Path | None, **rights: Any) -> None:
    """Make a key of 256 random bits, and the entry that declares it under `keys:` in convoy.yaml.

    The server needs only the entry, which holds the SHA-256 of the key.

    \b
    convoy keys new shop --model resnet20-cifar10 --rate 50
    convoy keys new operator --admin --out operator.key
    """
    import yaml

    from serve.config.loading import parse_settings
    from serve.config.schema import ApiKey

    key = new_key()
    granted = {right: list(value) if isinstance(value, tuple) else value for right, value in rights.items() if value}
    entry = {"name": name, "sha256": digest(key).hex(), **granted}
    parse_settings({"models": [], "keys": [entry]}, "convoy keys new")
    if out is None:
        click.echo(f"key, shown only once:\n  {key}")
    else:
        write_key(out, key)
        click.echo(f"key written to {out}")
    text = yaml.safe_dump(
        [ApiKey.model_validate(entry).model_dump(mode="json", exclude_defaults=True)], sort_keys=False
    )
    click.echo(f"keys:\n{text}", nl=False)


@keys.command()
@server_option
def local(url: str) -> None:
    """Print the path of the admin key file that `convoy up` wrote for this user.

    \b
    curl -X POST -H "Authorization: Bearer $(cat $(convoy keys local))" …
    """
    path = local_key_file(url)
    if path is None:
        raise NotFound(f"no key file: this user has started no server at {url}; start one with: convoy up")
    click.echo(path)


def write_key(path: Path, key: str) -> None:
    """Writes a new file that only this user can read. Raises InvalidInput when it exists: it may hold a key in use."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written ({error.strerror}); name another file") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{key}\n")
