"""`convoy import`: makes an artifact of weights that were trained elsewhere."""

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
    """Source of a network: at most one field is set; none means public weights by the name of the model."""

    onnx: Path | None
    architecture: str | None
    timm: str | None
    torchvision: str | None


@click.command("import")
@click.argument("name")
@click.option("--onnx", type=FILE, help="ONNX file of an image classifier.")
@click.option(
    "--architecture", "-a", help="Architecture of the zoo that --weights belong to; see convoy models --architectures."
)
@click.option("--timm", help="Name of a timm model, with its own weights or --weights.")
@click.option("--torchvision", help="Name of a torchvision model, with its own weights or --weights.")
@click.option("--weights", type=FILE, help="Weights: a safetensors file or a PyTorch state dict.")
@click.option("--labels", help="Class names: a file with one name per line, or imagenet1k.")
@click.option(
    "--description", type=FILE, help="JSON file with any of labels, resize, size, mean, std; options override it."
)
@click.option(
    "--resize",
    type=click.IntRange(1),
    help="Length of the short side before the crop, in pixels.  [default: by the network]",
)
@click.option("--size", type=click.IntRange(1), help="Side of the crop in pixels, if the ONNX file does not fix it.")
@click.option("--mean", help="Mean per channel of pixels in 0..1, such as 0.485,0.456,0.406.  [default: ImageNet's]")
@click.option("--std", help="Standard deviation per channel.  [default: ImageNet's]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the artifact.  [default: artifacts/NAME]")
def import_model(
    name: str, onnx: Path | None, architecture: str | None, timm: str | None, torchvision: str | None,
    weights: Path | None, out: Path | None, **described: Any,
) -> None:  # fmt: skip
    """Make an artifact of public weights, an ONNX file, weights for an architecture of the zoo, or a timm or torchvision model.

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
        _check_out(out, origin.onnx, weights, described)
        _import(name, origin, weights, out, described)
    except ModuleNotFoundError as error:
        extra = "compile" if onnx else "hubs" if timm or torchvision else "train"
        raise ConvoyError(
            f"importing a model needs {error.name}; install it with: pip install 'convoy-serve[{extra}]'"
        ) from error
    click.echo(f"{out}: compiled and compared with the original; to serve it, add to convoy.yaml:")
    click.echo(f"models:\n  - name: {name}\n    artifact: {out}")


def _check_usage(origin: Origin, weights: Path | None) -> None:
    sources = [f"--{key}" for key, value in vars(origin).items() if value is not None]
    if len(sources) > 1:
        raise click.UsageError(f"{' and '.join(sources)} exclude each other; give one of them")
    if origin.architecture and weights is None:
        raise click.UsageError("--architecture needs --weights (and --labels with their classes)")
    if weights is not None and (not sources or origin.onnx):
        raise click.UsageError(
            "--weights needs the network that they belong to: --architecture, --timm or --torchvision"
        )


def _check_name(name: str) -> None:
    from serve.config.loading import parse_settings

    parse_settings({"models": [{"name": name}]}, source=f"the name {name!r}")


def _check_out(out: Path, onnx: Path | None, weights: Path | None, described: dict[str, Any]) -> None:
    """Checks the output folder before downloads and exports, which may take minutes."""
    from models.artifact_folder import check_out

    inputs = (onnx, weights, described["description"], described["labels"])
    check_out(out, [Path(path) for path in inputs if path is not None and Path(path).exists()])


def _import(name: str, origin: Origin, weights: Path | None, out: Path, described: dict[str, Any]) -> None:
    description = _describe(**described)
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

    options = Description(read_labels(labels) if labels else None, resize, size, _numbers(mean), _numbers(std))
    return options.over(read_description(description)) if description else options


def _numbers(text: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in text.split(",")) if text else None
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not a list of numbers; write 0.485,0.456,0.406") from error
