"""`convoy render`: the configuration in the form that Ray Serve deploys."""

from __future__ import annotations

from pathlib import Path

import click

from convoy.cli.options import config_option


@click.command()
@config_option
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="File to write.  [default: print]"
)
@click.option("--environment", is_flag=True, help="The variables that every Ray node needs, instead of the document.")
def render(config: Path | None, output: Path | None, environment: bool) -> None:
    """Write the configuration as Ray Serve's config document, which `serve deploy` and RayService run.

    \b
    convoy render --config convoy.yaml > serve.yaml && serve deploy serve.yaml
    convoy render --environment
    """
    from convoy.errors import InvalidInput
    from convoy.files import is_same_file, write_file
    from serve.config.loading import load_settings
    from serve.deployments.local import RAY_ENVIRONMENT
    from serve.deployments.serve_config import deploy_yaml, environment_lines

    if output and config and is_same_file(output, config):
        raise InvalidInput(f"{output} is the configuration itself; name another file with --output")
    text = environment_lines(RAY_ENVIRONMENT) if environment else deploy_yaml(load_settings(config))
    if output is None:
        click.echo(text, nl=False)
    else:
        write_file(output, text)
