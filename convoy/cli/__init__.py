"""The `convoy` command. Each command imports what it needs when it runs, so that `--help` is fast."""

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
    """Prints a ConvoyError as one line without a traceback and exits with 1."""

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
    """Serve CNN image classifiers, and compare their accuracy, latency and energy.

    \b
    convoy up                                  serve the bundled models on 127.0.0.1
    convoy demo                                start, classify sample images, stop
    convoy classify photo.jpg                  classify a photo with every model; or all photos of a folder
    convoy models                              list the served models with accuracy and size
    convoy models --architectures              list the architectures; with NAME, show its layers
    convoy import resnet50-imagenet            import public weights, or your own
    convoy compile MODEL --precision int8      build a faster engine and check its accuracy
    convoy engines ls                          list the stored engines
    convoy tune MODEL --slo-p99 20ms           find its fastest configuration on this machine
    convoy explain                             show threads, placement, batch limits and bottlenecks
    convoy ensemble suggest                    find models worth combining, on a validation set
    convoy render -c convoy.yaml               write the Ray Serve config document for a cluster
    convoy capacity MODEL --rate 200 …         compute the gateways and hosts that a load needs
    convoy experiment report NAME              compare the arms of an experiment
    convoy feedback labels.csv                 send true labels or rewards
    convoy atlas                               chart latency, memory and energy of networks
    convoy keys new NAME                       make an API key and its configuration entry
    """
    context.obj = credentials


COMMANDS = (
    up, demo, classify, models, import_model, compile_model, engines, explain, render, ensemble, experiment, feedback,
    capacity, atlas, keys, tune,
)  # fmt: skip
for command in COMMANDS:
    main.add_command(command)
