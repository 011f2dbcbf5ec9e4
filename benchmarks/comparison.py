"""The sections that compare Convoy with the limits and its peers, in turns: the same network, decoding and client for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from benchmarks.load import h2load, wrk
from benchmarks.nets import Net
from benchmarks.peers import requests
from benchmarks.peers.contenders import PEERS, Work, grpc_limits, grpc_targets, http_limits, triton_grpc, triton_http
from benchmarks.sections import GRPC_PATH, OCTETS, PATIENT, Row, Setup, classify, model, profiled, tight_loop
from benchmarks.server import Server, serving
from benchmarks.turns import Contender, Target, in_turns, over_http
from convoy.protos import classifier_pb2

CORES = 2
SHARE = 2  # a measurement in turns takes this part of the section's seconds, in each of the turns


def lenet5_images(setup: Setup) -> list[Row]:
    """LeNet-5, 28x28 PNG over HTTP, local and dedicated, with the server's profile under each load."""
    net = setup.lenet5()
    return _images(setup, net, 32, [model(net), model(net, "hosted", placement="dedicated")], threads=1)


def lenet5_tensors(setup: Setup) -> list[Row]:
    """LeNet-5, 28x28 float tensors in the Open Inference Protocol's binary form, over HTTP."""
    return _tensors(setup, setup.lenet5(), 32, threads=1)


def lenet5_grpc(setup: Setup) -> list[Row]:
    """The same images and tensors over gRPC, 32 in flight on 4 connections."""
    return _grpc(setup, setup.lenet5(), threads=1)


def resnet18_images(setup: Setup) -> list[Row]:
    """ResNet-18, 500x375 JPEG over HTTP, local and dedicated, 16 connections; and a tight loop of decoding and running."""
    net = setup.resnet18()
    models = [model(net, **PATIENT), model(net, "hosted", placement="dedicated", **PATIENT)]
    rows = _images(setup, net, 16, models, threads=CORES)
    return [*rows, {"name": "tight loop", "connections": 16, "rps": tight_loop(net, setup.seconds), "failed": 0}]


def resnet18_tensors(setup: Setup) -> list[Row]:
    """ResNet-18, 3x224x224 float tensors in the Open Inference Protocol's binary form, over HTTP."""
    return _tensors(setup, setup.resnet18(), 16, threads=CORES)


def resnet18_grpc(setup: Setup) -> list[Row]:
    """The same photos and tensors over gRPC, 32 in flight on 4 connections."""
    return _grpc(setup, setup.resnet18(), threads=CORES)


def _images(setup: Setup, net: Net, connections: int, models: Sequence[Row], threads: int) -> list[Row]:
    work, payload = setup.work(net), requests.image(net)

    def urls(server: Server) -> dict[str, str]:
        return {"Convoy, local": classify(server, net.name), "Convoy, dedicated": classify(server, "hosted")}

    def targets(server: Server) -> list[Target]:
        return [Target(name, server.pid, over_http(url, payload)) for name, url in urls(server).items()]

    peers = [peer.contender(work) for peer in PEERS if setup.runs(peer.environment)]
    contenders: list[Contender] = [*http_limits(work, payload, threads), partial(_convoy, setup, models, targets)]
    rows = in_turns([*contenders, *_triton(setup, work, "image"), *peers], (connections, 1), setup.seconds / SHARE)
    with serving(setup.scratch, models) as server:
        for name, url in urls(server).items():
            rows.append({"name": name, **profiled(server, partial(wrk, url, net.image, connections, 6, OCTETS))})
    return rows


def _tensors(setup: Setup, net: Net, connections: int, threads: int) -> list[Row]:
    work = setup.work(net)
    payload, models = requests.float_tensor(net, setup.scratch), [model(net, **PATIENT)]

    def targets(server: Server) -> list[Target]:
        return [Target("Convoy, local", server.pid, over_http(_infer(server, net), payload))]

    contenders: list[Contender] = [*http_limits(work, payload, threads), partial(_convoy, setup, models, targets)]
    rows = in_turns([*contenders, *_triton(setup, work, "tensor")], (connections, 1), setup.seconds / SHARE)
    with serving(setup.scratch, models) as server:
        load = partial(wrk, _infer(server, net), payload.body, connections, 6, payload.headers)
        return [*rows, {"name": "Convoy, local", **profiled(server, load)}]


def _grpc(setup: Setup, net: Net, threads: int) -> list[Row]:
    work, models = setup.work(net), [model(net, **PATIENT)]

    def targets(server: Server) -> list[Target]:
        names = {"image": net.name, "tensor": f"{net.name}-tensor"}
        return grpc_targets(work, "Convoy", server.pid, server.grpc_port, names)

    triton = [triton_grpc(work)] if setup.runs("triton") else []
    contenders: list[Contender] = [*grpc_limits(work, threads), partial(_convoy, setup, models, targets), *triton]
    rows = in_turns(contenders, (32, 1), setup.seconds / SHARE)
    with serving(setup.scratch, models) as server:
        request = classifier_pb2.ClassifyRequest(model=net.name, images=[net.image.read_bytes()])
        message = requests.framed(request, setup.scratch / "classify.bin")
        url = f"http://127.0.0.1:{server.grpc_port}/{GRPC_PATH}"
        rate = next(row["rps"] for row in rows if row["name"] == "Convoy, image")
        count = round(rate * setup.seconds)
        return [*rows, {"name": "Convoy, Classify", **profiled(server, partial(h2load, url, message, 4, 8, count))}]


@contextmanager
def _convoy(
    setup: Setup, models: Sequence[Row], targets: Callable[[Server], list[Target]]
) -> Iterator[Sequence[Target]]:
    with serving(setup.scratch, models) as server:
        yield targets(server)


def _triton(setup: Setup, work: Work, kind: str) -> list[Contender]:
    return [triton_http(work, kind)] if setup.runs("triton") else []


def _infer(server: Server, net: Net) -> str:
    return f"{server.http}/v2/models/{net.name}-tensor/infer"
