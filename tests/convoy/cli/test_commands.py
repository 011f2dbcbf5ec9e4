"""Every command is in the file with its name, documents its options, and loads heavy packages only when it runs."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from convoy.cli import main

MODULES = {"import": "import_model"}  # `import` cannot be the name of a module


def walk(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found = [(path, command)]
    for name, inner in getattr(command, "commands", {}).items():
        found += walk(inner, (*path, name))
    return found


@pytest.mark.parametrize("name", sorted(main.commands))
def test_a_command_is_in_the_file_with_its_name(name: str) -> None:
    for _, command in walk(main.commands[name]):
        assert command.callback is not None
        assert command.callback.__module__ == f"convoy.cli.{MODULES.get(name, name)}"


@pytest.mark.parametrize(("path", "command"), walk(main)[1:])
def test_every_command_and_option_has_help(path: tuple[str, ...], command: click.Command) -> None:
    done = CliRunner().invoke(main, [*path, "--help"])
    assert done.exit_code == 0
    assert command.help
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


def test_help_loads_no_heavy_package() -> None:
    heavy = "{'httpx', 'numpy', 'grpc', 'pydantic', 'yaml', 'PIL', 'ray', 'sqlalchemy'}"
    code = f"import sys, convoy.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
