"""The command line. The help of each command begins with the question that it answers."""

from __future__ import annotations

import sys

import click

from convoy.errors import ConvoyError
from loadtest.cli.comparing import compare
from loadtest.cli.mlperf import mlperf
from loadtest.cli.searching import limit, soak, spike, sweep
from loadtest.cli.single import run, scenario, scenarios
from loadtest.cli.trusting import selfcheck


class Group(click.Group):
    """Prints a ConvoyError as one line, and lists commands in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConvoyError as error:
            click.echo(f"loadtest: {error}", err=True)
            sys.exit(1)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Load an image classifier over HTTP or gRPC and get numbers that can be trusted.

    \b
    What latency do users see at 100 requests/s?
      python -m loadtest run http://127.0.0.1:8000 -m resnet20-cifar10 --rate 100
    How fast is it with 16 clients that each wait for an answer (closed loop)?
      python -m loadtest run http://127.0.0.1:8000 -m resnet20-cifar10 --concurrency 16
    How many requests/s can it serve with p99 at most 50 ms?
      python -m loadtest limit http://127.0.0.1:8000 -m resnet20-cifar10 --p99 50ms
    Is B faster than A?
      python -m loadtest compare http://127.0.0.1:8000 http://127.0.0.1:9000 -m resnet20-cifar10 --rate 100
    Are the answers correct?
      python -m loadtest run URL -m MODEL --rate 20 --images photos/ --labels folder
    What would MLPerf measure, and how much of it does the server cost?
      python -m loadtest mlperf --scenario offline --url http://127.0.0.1:8000 -m resnet20-cifar10-tensor --tensor

    \b
    Prefer open loop (--rate): requests start at their scheduled times, even if the server stalls, and latency counts
    from there, so a stall shows in every request that it delays. Closed loop (--concurrency) hides stalls, because
    a slow server gets fewer requests.
    Numbers come with a verdict. INVALID: this generator was the bottleneck. NOT STEADY: no single number fits.
    Nothing is retried, and every request is accounted for.
    Exit codes: 0 valid, 1 error, 3 the generator was the bottleneck, 4 --require was not met or no request succeeded.

    URL is http://HOST:PORT, or grpc://HOST:PORT for protocols grpc and grpc-classify.
    """


for command in (run, limit, sweep, spike, soak, compare, scenario, scenarios, mlperf, selfcheck):
    main.add_command(command)
