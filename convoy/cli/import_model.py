"""`convoy import`: what others trained becomes a served model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convoy.errors import ConvoyError

if TYPE_CHECKING:
    from models.compile.description import Description

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Origin:
    """Where a network comes from: exactly one of its fields is set, or none for public weights by the model's name."""

    onnx: Path | None
    architecture: str | None
    timm: str | None
    torchvision: str | None


@click.command("import")
@click.argument("name")
@click.option("--onnx", type=FILE, help="ONNX file of a classifier.")
@click.option(
    "--architecture", "-a", help="Network of the zoo that the weights are for; see convoy models --architectures."
)
@click.option("--timm", help="Network of timm by its name there, with its weights or --weights.")
@click.option("--torchvision", help="Network of torchvision by its name there, with its weights or --weights.")
@click.option("--weights", type=FILE, help="safetensors or state dict.")
@click.option("--labels", help="Class names: a file with one a line, or imagenet1k.")
@click.option(
    "--description", type=FILE, help="JSON with any of labels, resize, size, mean, std; options go before it."
)
@click.option("--resize", type=click.IntRange(1), help="Short side before the crop.  [default: by the network]")
@click.option("--size", type=click.IntRange(1), help="Side of the crop, where an ONNX file leaves it open.")
@click.option("--mean", help="Per channel, of pixels in 0..1: 0.485,0.456,0.406  [default: ImageNet's]")
@click.option("--std", help="Per channel.  [default: ImageNet's]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the artifact.  [default: artifacts/NAME]")
def import_model(
    name: str, onnx: Path | None, architecture: str | None, timm: str | None, torchvision: str | None,
    weights: Path | None, out: Path | None, **said: Any,
) -> None:  # fmt: skip
    """Make a model of public weights, of an ONNX file, of weights for an architecture of the zoo, or of timm's.

    \b
    convoy import resnet50-imagenet
    convoy import flowers --onnx flowers.onnx --labels flowers.txt --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5
    convoy import flowers -a resnet18 --weights flowers.safetensors --labels flowers.txt
    convoy import resnet18-a1 --timm resnet18.a1_in1k
    """
    origin = Origin(onnx, architecture, timm, torchvision)
    _check_usage(origin, weights)
    _check_name(name)
    out = out or Path("artifacts") / name
    try:
        _check_out(out, origin.onnx, weights, said)
        _import(name, origin, weights, out, said)
    except ModuleNotFoundError as error:
        extra = "compile" if onnx else "train"
        raise ConvoyError(
            f"importing a model needs {error.name}; install it with: pip install 'convoy-serve[{extra}]'"
        ) from error
    click.echo(f"{out}: compiled and compared with the original; to serve it, add to convoy.yaml:")
    click.echo(f"models:\n  - name: {name}\n    artifact: {out}")


def _check_usage(origin: Origin, weights: Path | None) -> None:
    given = [f"--{key}" for key, value in vars(origin).items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other: a model comes from one place")
    if origin.architecture and weights is None:
        raise click.UsageError("--architecture needs --weights (and --labels for their classes)")
    if weights is not None and (not given or origin.onnx):
        raise click.UsageError("--weights needs --architecture, --timm or --torchvision: what network they are for")


def _check_name(name: str) -> None:
    from serve.config.loading import parse_settings

    parse_settings({"models": [{"name": name}]}, source=f"the name {name!r}")


def _check_out(out: Path, onnx: Path | None, weights: Path | None, said: dict[str, Any]) -> None:
    """Before anything is fetched or exported, which may take minutes."""
    from models.artifact_folder import check_out

    given = (onnx, weights, said["description"], said["labels"])
    check_out(out, [Path(one) for one in given if one is not None and Path(one).exists()])


def _import(name: str, origin: Origin, weights: Path | None, out: Path, said: dict[str, Any]) -> None:
    description = _describe(**said)
    if origin.onnx:
        from models.importing.from_onnx import import_onnx

        import_onnx(name, origin.onnx, description, out)
        return
    from models.importing import from_weights
    from models.importing.from_hubs import find_hub_model

    if origin.architecture and weights:
        from_weights.import_own(name, from_weights.own_weights(origin.architecture, weights, description), out)
    elif origin.timm or origin.torchvision:
        model = find_hub_model(
            "timm" if origin.timm else "torchvision", origin.timm or origin.torchvision or "", weights
        )
        from_weights.import_hub(name, model, description, out)
        if model.warning:
            click.echo(f"note: {model.warning}", err=True)
    else:
        from_weights.import_public(name, out)


def _describe(
    labels: str | None,
    description: Path | None,
    resize: int | None,
    size: int | None,
    mean: str | None,
    std: str | None,
) -> Description:
    from models.compile.description import Description, read_description, read_labels

    said = Description(read_labels(labels) if labels else None, resize, size, _numbers(mean), _numbers(std))
    return said.over(read_description(description)) if description else said


def _numbers(text: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in text.split(",")) if text else None
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not a list of numbers such as 0.485,0.456,0.406") from error
