"""Scenarios: measurement plans as YAML files. Errors name the key and the nearest known one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from convoy.errors import ConfigError, shown, unknown
from convoy.files import expand_home
from convoy.validation import explain
from convoy.yaml_text import parse_yaml
from loadtest.arrivals import read_recorded
from loadtest.plan import PROTOCOLS, Feedback, Load, Payload, Plan, Protocol, Step, Target, Traffic

KEYS = (
    "name", "about", "target", "traffic", "load", "duration", "warmup", "deadline_ms", "seed", "workers", "feedback",
    "probe_concurrency",
)  # fmt: skip
FOLDER = Path(__file__).parent / "scenarios"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
Value = TypeVar("Value")


@dataclass(frozen=True)
class Scenario:
    """A plan and its purpose. With `of_capacity` its rates are multiples of a capacity, which is measured first."""

    about: str
    plan: Plan
    of_capacity: bool
    probe_concurrency: int = 32

    def __post_init__(self) -> None:
        if self.probe_concurrency < 1:
            raise ConfigError("probe_concurrency must be at least 1")


def seconds(text: object) -> float:
    """`500ms`, `30s`, `5m`, `2h` or a number of seconds. Raises ConfigError."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*(ms|s|m|h)?\s*", str(text))
    try:
        if match is None:
            raise ValueError
        return float(match[1]) * UNITS[match[2] or "s"]
    except ValueError as error:
        raise ConfigError(f"{shown(text)} is no duration; write 500ms, 30s, 5m or 2h") from error


def known_scenarios() -> dict[str, Path]:
    """The scenarios that come with the package."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def load_scenario(name: str, url: str | None = None) -> Scenario:
    """A scenario by its name or file. Raises ConfigError, which names the file and the key."""
    path = known_scenarios().get(name, Path(name))
    if not path.is_file():
        near = difflib.get_close_matches(name, known_scenarios(), 1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known_scenarios())}"
        raise ConfigError(f"no scenario {name!r}{hint}")
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return parse_scenario(document, url, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_scenario(document: Any, url: str | None, folder: Path) -> Scenario:
    """A scenario from parsed YAML; its paths are relative to `folder`. Raises ConfigError."""
    top = _mapping(document, "the scenario", KEYS)
    for needed in ("name", "traffic", "load"):
        if needed not in top:
            raise ConfigError(f"{needed} is missing")
    relative, load = _load(top["load"], folder)
    plan = {key: top[key] for key in ("deadline_ms", "seed", "workers") if key in top}
    plan |= {
        "name": str(top["name"]),
        "target": _target(top.get("target", {}), url),
        "traffic": tuple(_traffic(entry, folder) for entry in _list(top["traffic"], "traffic")),
        "load": load,
        "duration_s": seconds(top.get("duration", load.seconds or "30s")),
        "warmup_s": seconds(top.get("warmup", "2s")),
        "feedback": None if top.get("feedback") is None else _build(Feedback, top["feedback"], "feedback"),
    }
    scenario = {key: top[key] for key in ("probe_concurrency",) if key in top}
    scenario |= {
        "about": " ".join(str(top.get("about", "")).split()),
        "plan": _build(Plan, plan, "the scenario"),
        "of_capacity": relative,
    }
    return _build(Scenario, scenario, "the scenario")


def _target(entry: Any, url: str | None) -> Target:
    target = dict(_mapping(entry, "target", _model(Target).model_fields))
    if url is not None:
        target["url"] = url
    target.setdefault(
        "url",
        "grpc://127.0.0.1:8001" if str(target.get("protocol", "")).startswith("grpc") else "http://127.0.0.1:8000",
    )
    if "headers" in target:
        headers = target["headers"]
        if not isinstance(headers, dict):
            raise ConfigError("target.headers must be a mapping of names to values")
        target["headers"] = tuple((str(name), str(value)) for name, value in headers.items())
    return _build(Target, target, "target")


def scale(plan: Plan, capacity: float) -> Plan:
    """The plan with its rates, which are multiples of a capacity, as requests per second."""
    steps = tuple(Step(step.rate * capacity, step.seconds) for step in plan.load.steps)
    return replace(plan, load=replace(plan.load, steps=steps))


def _traffic(entry: Any, folder: Path) -> Traffic:
    values = dict(_mapping(entry, "traffic", _model(Traffic).model_fields))
    payload = dict(_mapping(values.pop("payload", {}), "payload", _model(Payload).model_fields))
    for key in ("folder", "labels_csv"):
        if payload.get(key):
            payload[key] = str(folder / expand_home(str(payload[key])))
    if "shape" in payload:
        payload["shape"] = tuple(_list(payload["shape"], "payload.shape"))
    if "model" not in values:
        raise ConfigError("each traffic needs a model")
    return _build(Traffic, {**values, "payload": _build(Payload, payload, "payload")}, "traffic")


def _load(entry: Any, folder: Path) -> tuple[bool, Load]:
    known = ("process", "rate", "steps", "burstiness", "recorded", "concurrency", "think")
    values = dict(_mapping(entry, "load", known))
    steps = values.pop("steps", None)
    if "rate" in values:
        if steps is not None:
            raise ConfigError("load: set rate or steps, not both")
        steps = [{"rate": values.pop("rate"), "seconds": "8760h"}]
    parsed = [_step(step) for step in _list(steps or [], "load.steps")]
    if len({relative for relative, _ in parsed}) > 1:
        raise ConfigError("load: rates are either all multiples of the capacity (2x) or all requests per second")
    if "recorded" in values:
        try:
            values["recorded"] = read_recorded((folder / str(values["recorded"])).read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"load.recorded: {error}") from error
    if "think" in values:
        values["think_s"] = seconds(values.pop("think"))
    load = {**values, "steps": tuple(step for _, step in parsed)}
    return any(relative for relative, _ in parsed), _build(Load, load, "load")


def _step(entry: Any) -> tuple[bool, Step]:
    values = _mapping(entry, "load.steps", ("rate", "seconds"))
    text = str(values.get("rate", ""))
    try:
        rate = float(text.removesuffix("x"))
    except ValueError as error:
        raise ConfigError(
            f"rate {shown(text)} is neither requests per second nor a multiple of the capacity such as 2x"
        ) from error
    return text.endswith("x"), Step(rate, seconds(values.get("seconds", "")))


def _mapping(value: Any, where: str, known: Iterable[str]) -> Mapping[str, Any]:
    """Checks the keys of a mapping before the values that have a notation of their own (durations, rates) are converted."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a mapping")
    for key in value:
        if key not in known:
            raise ConfigError(f"{where}: {unknown('key', str(key), known)}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list")
    return value


def _build(kind: type[Value], values: Any, where: str) -> Value:
    """Builds a dataclass of the plan. Types are strict: an integer is accepted as a float, a boolean or a text is not.

    Raises ConfigError.
    """
    model = _model(kind)
    try:
        checked = model.model_validate(dict(_mapping(values, where, model.model_fields)))
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error)}") from error
    return kind(**{name: getattr(checked, name) for name in checked.model_fields_set})


def _model(kind: type[Any]) -> type[BaseModel]:
    """The fields of a dataclass as a strict model. Strict pydantic dataclasses refuse mappings, lax ones take true for 1."""
    hints = get_type_hints(kind)
    required = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}
    shape: dict[str, Any] = {name: (hint, ... if name in required else None) for name, hint in hints.items()}
    return create_model(kind.__name__, __config__=ConfigDict(strict=True, extra="forbid"), **shape)


def protocol_of(text: str) -> Protocol:
    """A protocol by name. Raises ConfigError."""
    for known in PROTOCOLS:
        if text == known:
            return known  # type: ignore[return-value]
    raise ConfigError(f"protocol {shown(text)} is not one of {', '.join(PROTOCOLS)}")
