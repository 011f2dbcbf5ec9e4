"""What runs batches for an endpoint: the interface of local engines and remote hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.engines.engine import TensorSpec
from serve.batching.latency_curve import LatencyCurve
from serve.batching.slots import Slots
from serve.executors.engine_selection import EngineFacts

Form = Literal["image", "tensor"]


FORMS: tuple[Form, Form] = ("image", "tensor")


class Executor(Protocol):
    """Runs batches of either form, each under one of its `slots`. `on_measured` is told when another engine has its curve."""

    slots: Slots
    inputs: Mapping[Form, TensorSpec]
    on_measured: list[Callable[[LatencyCurve], None]]

    @property
    def curve(self) -> LatencyCurve: ...

    @property
    def facts(self) -> EngineFacts:
        """What really runs."""
        ...

    async def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]: ...

    def close(self) -> None: ...
