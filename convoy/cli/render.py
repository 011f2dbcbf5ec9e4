"""`convoy render`: the configuration as a document that Ray Serve deploys."""

from __future__ import annotations

from pathlib import Path

import click

from convoy.cli.options import config_option


@click.command()
@config_option
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="File to write.  [default: standard output]"
)
@click.option("--environment", is_flag=True, help="Print the environment variables that every Ray node needs, instead.")
def render(config: Path | None, output: Path | None, environment: bool) -> None:
    """Write the configuration as a Ray Serve config document, for `serve deploy` and KubeRay's RayService.

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
        raise InvalidInput(f"--output {output} would overwrite the configuration; name another file")
    text = environment_lines(RAY_ENVIRONMENT) if environment else deploy_yaml(load_settings(config))
    if output is None:
        click.echo(text, nl=False)
    else:
        write_file(output, text)
