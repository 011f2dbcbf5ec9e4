"""Networks and request bodies of the benchmarks: LeNet-5 and a ResNet-18 with random weights."""

from __future__ import annotations

import io
import itertools
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import orjson
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from models.artifact import BUNDLED, MANIFEST, TENSOR_MODEL, Artifact, Manifest, Preprocessing, file_hash
from models.compile.export import export
from models.graphs.preprocessing_graph import add_preprocessing

DIGIT = Preprocessing(1, 28, 28, (0.0,), (1.0,))
PHOTO = Preprocessing(3, 256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PHOTO_SIZE = (500, 375)


@dataclass(frozen=True)
class Net:
    """An artifact, an image to send, and the float graph that peers load."""

    name: str
    artifact: Artifact
    image: Path
    gray: bool

    @property
    def onnx(self) -> Path:
        return self.artifact.tensor_model


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, with a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = projection if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18_net() -> nn.Module:
    """ResNet-18 for 224x224: He et al., arXiv 1512.03385, table 1; 1.8 G multiply-adds."""
    widths = (64, 64, 128, 256, 512)
    stages = [
        nn.Sequential(Block(inputs, outputs, 1 if inputs == outputs else 2), Block(outputs, outputs, 1))
        for inputs, outputs in itertools.pairwise(widths)
    ]
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def lenet5(folder: Path) -> Net:
    """The bundled LeNet-5, whose float graph here takes 28x28 pixels from 0 to 1; the image is a 28x28 grey PNG of a seven."""
    source = Artifact.load(BUNDLED / "lenet5-mnist")
    out = folder / "lenet5"
    out.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        _on_pixels(onnx.load(str(source.tensor_model)), source.manifest.preprocessing), str(out / TENSOR_MODEL)
    )
    add_preprocessing(DIGIT, out)
    return Net("lenet5", _describe(out, "lenet5", DIGIT, 10), BUNDLED / "samples" / "mnist-0-7.png", gray=True)


def _on_pixels(model: onnx.ModelProto, steps: Preprocessing) -> onnx.ModelProto:
    """The graph with padding and normalisation in front, so that servers without our preprocessing need not know them."""
    graph = model.graph
    shape = [1, steps.channels, 1, 1]
    scale, shift = (
        [1 / std for std in steps.std],
        [-mean / std for mean, std in zip(steps.mean, steps.std, strict=True)],
    )
    for node in graph.node:
        node.input[:] = ["normalised" if name == "input" else name for name in node.input]
    network = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.initializer.extend(
        (
            helper.make_tensor("pixel_pad", TensorProto.INT64, [8], [0, 0, steps.pad, steps.pad] * 2),
            helper.make_tensor("pixel_scale", TensorProto.FLOAT, shape, scale),
            helper.make_tensor("pixel_shift", TensorProto.FLOAT, shape, shift),
        )
    )
    front = (
        helper.make_node("Pad", ["input", "pixel_pad"], ["pixel_padded"]),
        helper.make_node("Mul", ["pixel_padded", "pixel_scale"], ["pixel_scaled"]),
        helper.make_node("Add", ["pixel_scaled", "pixel_shift"], ["normalised"]),
    )
    graph.node.extend([*front, *network])
    pixels: list[str | int | None] = ["batch", steps.channels, steps.size, steps.size]
    graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, pixels))
    return model


def resnet18(folder: Path) -> Net:
    """ResNet-18 with seeded random weights, which cost as much to run as trained ones; the image is a 500x375 JPEG."""
    out = folder / "resnet18"
    image = folder / "photo.jpg"
    if not (out / MANIFEST).exists():
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(18)
        export(resnet18_net(), PHOTO, out)
        _describe(out, "resnet18", PHOTO, 1000)
        image.write_bytes(photo(*PHOTO_SIZE))
    return Net("resnet18", Artifact.load(out), image, gray=False)


def _describe(out: Path, name: str, steps: Preprocessing, classes: int) -> Artifact:
    files = [file.name for file in out.iterdir() if file.suffix in (".onnx", ".bin")]
    weights = onnx.load(str(out / TENSOR_MODEL)).graph.initializer
    manifest = Manifest(
        name=name,
        version="1",
        architecture=name,
        dataset="none",
        labels=tuple(map(str, range(classes))),
        preprocessing=steps,
        params=sum(int(np.prod(tensor.dims)) for tensor in weights),
        macs=0,
        accuracy={},
        files={file: file_hash(out / file) for file in sorted(files)},
        parity={},
        made={"by": "benchmarks"},
        source="benchmarks",
        licence="Apache-2.0",
    )
    (out / MANIFEST).write_text(manifest.to_json())
    return Artifact.load(out)


def photo(width: int, height: int) -> bytes:
    """The bundled coffee cup as a JPEG of quality 90."""
    with Image.open(BUNDLED / "samples" / "coffee.png") as image:
        stream = io.BytesIO()
        image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def photos(folder: Path) -> Path:
    """A folder of the bundled photos, to calibrate networks without a validation set: enough for ranges, not for accuracy."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("camera", "chelsea", "coffee"):
        shutil.copy(BUNDLED / "samples" / f"{name}.png", folder)
    return folder


def noise(size: int) -> bytes:
    """A grey PNG of noise, which does not compress, of about `size` bytes."""
    side = max(1, round((size - 100) ** 0.5))
    pixels = np.random.default_rng(size).integers(0, 256, (side, side), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def tensor_body(shape: tuple[int, ...], path: Path) -> int:
    """Writes an Open Inference Protocol request with a binary float tensor; returns the length of its JSON part."""
    values = np.random.default_rng(0).random(shape, np.float32).tobytes()
    parameters = {"binary_data_size": len(values)}
    tensor = {"name": "input", "shape": shape, "datatype": "FP32", "parameters": parameters}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    path.write_bytes(head + values)
    return len(head)


def grpc_frame(message: bytes) -> bytes:
    """A gRPC message with the length prefix that it has in HTTP/2 data frames."""
    return b"\0" + struct.pack(">I", len(message)) + message
