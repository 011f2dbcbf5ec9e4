"""`convoy import`: weights that others trained become a served model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from convoy.errors import ConvoyError


@click.command("import")
@click.argument("name")
@click.option(
    "--architecture", "-a", help="Network of the zoo that the weights are for; see convoy models --architectures."
)
@click.option(
    "--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="safetensors or state dict."
)
@click.option("--labels", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Class names, one a line.")
@click.option("--resize", type=click.IntRange(1), help="Short side before the crop.  [default: by the architecture]")
@click.option("--mean", help="Per channel, of pixels in 0..1: 0.485,0.456,0.406  [default: ImageNet's]")
@click.option("--std", help="Per channel.  [default: ImageNet's]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the artifact.  [default: artifacts/NAME]")
def import_model(
    name: str, architecture: str | None, weights: Path | None, labels: Path | None, resize: int | None,
    mean: str | None, std: str | None, out: Path | None,
) -> None:  # fmt: skip
    """Make a model of public weights, or of your own for an architecture of the zoo.

    \b
    convoy import resnet50-imagenet
    convoy import flowers -a resnet18 --weights flowers.safetensors --labels flowers.txt
    """
    try:
        from models import importing
    except ModuleNotFoundError as error:
        raise ConvoyError(
            f"importing a model needs {error.name}; install it with: pip install 'convoy-serve[train]'"
        ) from error
    out = out or Path("artifacts") / name
    given = (architecture, weights, labels)
    if not any(given):
        importing.import_public(name, out)
    elif architecture and weights and labels:
        steps = importing.default_steps(architecture, _numbers(mean), _numbers(std))
        steps = replace(steps, resize=resize) if resize else steps
        own = importing.OwnWeights(architecture, weights, tuple(labels.read_text().split("\n")[:-1]), steps)
        importing.import_own(name, own, out)
    else:
        raise click.UsageError("weights of your own need all of --architecture, --weights and --labels")
    click.echo(f"{out}: compiled and compared with torch; to serve it, add to convoy.yaml:")
    click.echo(f"models:\n  - name: {name}\n    artifact: {out}")


def _numbers(text: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in text.split(",")) if text else None
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not a list of numbers such as 0.485,0.456,0.406") from error
