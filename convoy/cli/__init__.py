"""The `convoy` command. Each command imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from convoy import __version__
from convoy.cli.atlas import atlas
from convoy.cli.capacity import capacity
from convoy.cli.classify import classify
from convoy.cli.compile import compile_model
from convoy.cli.demo import demo
from convoy.cli.engines import engines
from convoy.cli.ensemble import ensemble
from convoy.cli.experiment import experiment
from convoy.cli.explain import explain
from convoy.cli.feedback import feedback
from convoy.cli.import_model import import_model
from convoy.cli.keys import keys
from convoy.cli.models import models
from convoy.cli.options import credential_options
from convoy.cli.render import render
from convoy.cli.tune import tune
from convoy.cli.up import up
from convoy.errors import ConvoyError


class ConvoyGroup(click.Group):
    """Shows our own errors as one line without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConvoyError as error:
            click.echo(f"convoy: {error}", err=True)
            sys.exit(1)


@click.group(cls=ConvoyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="convoy")
@credential_options
@click.pass_context
def main(context: click.Context, /, **credentials: Path | None) -> None:
    """Serve CNN image classifiers and know which one to keep: its accuracy, its latency, its joules.

    \b
    convoy up                                  serve the default models on 127.0.0.1
    convoy classify photo.jpg                  ask every model what a photo shows, or every photo of a folder
    convoy models                              what is served, with accuracy and size
    convoy models --architectures              every network of the zoo; NAME shows one layer by layer
    convoy import resnet50-imagenet            a model of public weights, or of your own
    convoy compile MODEL --precision int8      a faster engine, if it is still right
    convoy engines ls                          which are built
    convoy tune MODEL --slo-p99 20ms           the fastest way to serve it on this machine
    convoy explain                             threads, placement and batch limits, and why
    convoy ensemble suggest                    which models to combine, by held-out labels
    convoy render -c convoy.yaml               the same server as Ray Serve's config document, for a cluster
    convoy capacity                            how many gateways and hosts a traffic needs
    convoy experiment report NAME              which architecture to keep, and why
    convoy atlas                               what networks cost on this machine, in charts
    convoy keys new NAME                       an API key, and what to declare for it
    """
    context.obj = credentials


COMMANDS = (
    up, demo, classify, models, import_model, compile_model, engines, explain, render, ensemble, experiment, feedback,
    capacity, atlas, keys, tune,
)  # fmt: skip
for command in COMMANDS:
    main.add_command(command)
