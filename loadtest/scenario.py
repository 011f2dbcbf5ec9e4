"""Scenarios: plans as YAML files. Unknown keys are refused with the nearest known one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from convoy.errors import ConfigError
from loadtest.arrivals import read_recorded
from loadtest.plan import PROTOCOLS, SEED, Feedback, Load, Payload, Plan, Protocol, Step, Target, Traffic

FOLDER = Path(__file__).parent / "scenarios"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
Value = TypeVar("Value")


@dataclass(frozen=True)
class Scenario:
    """A plan, what it is for, and whether its rates are multiples of a capacity that is to be measured first."""

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
        raise ConfigError(f"{text!r} is no duration; write 500ms, 30s, 5m or 2h") from error


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
        document = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return parse_scenario(document, url, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_scenario(document: Any, url: str | None, folder: Path) -> Scenario:
    """A scenario from YAML data; files it names are relative to `folder`."""
    known = (
        "name",
        "about",
        "target",
        "traffic",
        "load",
        "duration",
        "warmup",
        "deadline_ms",
        "seed",
        "workers",
        "feedback",
    )
    top = _mapping(document, "the scenario", (*known, "probe_concurrency"))
    for needed in ("name", "traffic", "load"):
        if needed not in top:
            raise ConfigError(f"{needed} is missing")
    rates, load = _load(top["load"], folder)
    feedback = top.get("feedback")
    plan = _value(
        Plan,
        "the scenario",
        target=_target(top.get("target", {}), url),
        traffic=tuple(_traffic(entry, folder) for entry in _list(top["traffic"], "traffic")),
        load=load,
        duration_s=seconds(top.get("duration", load.seconds or "30s")),
        warmup_s=seconds(top.get("warmup", "2s")),
        deadline_ms=top.get("deadline_ms"),
        seed=top.get("seed", SEED),
        workers=top.get("workers", 1),
        feedback=None if feedback is None else _build(Feedback, feedback, "feedback"),
        name=str(top["name"]),
    )
    about = " ".join(str(top.get("about", "")).split())
    return _value(
        Scenario,
        "the scenario",
        about=about,
        plan=plan,
        of_capacity=rates,
        probe_concurrency=top.get("probe_concurrency", 32),
    )


def _target(entry: Any, url: str | None) -> Target:
    target = dict(_mapping(entry, "target", _names(Target)))
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
    """A plan whose rates are multiples of a capacity, with rates per second."""
    steps = tuple(Step(step.rate * capacity, step.seconds) for step in plan.load.steps)
    return replace(plan, load=replace(plan.load, steps=steps))


def _traffic(entry: Any, folder: Path) -> Traffic:
    values = dict(_mapping(entry, "traffic", _names(Traffic)))
    payload = dict(_mapping(values.pop("payload", {}), "payload", _names(Payload)))
    for key in ("folder", "labels_csv"):
        if payload.get(key):
            payload[key] = str(folder / Path(str(payload[key])).expanduser())
    if "shape" in payload:
        payload["shape"] = tuple(_list(payload["shape"], "payload.shape"))
        for size in payload["shape"]:
            _check("payload.shape", size, int)
    if "model" not in values:
        raise ConfigError("each traffic needs a model")
    return _build(Traffic, {**values, "payload": _build(Payload, payload, "payload")}, "traffic")


def _load(entry: Any, folder: Path) -> tuple[bool, Load]:
    known = ("process", "rate", "steps", "burstiness", "recorded", "concurrency", "think")
    values = dict(_mapping(entry, "load", known))
    steps = values.pop("steps", None)
    if "rate" in values:
        if steps is not None:
            raise ConfigError("load: give rate or steps, not both")
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
    return any(relative for relative, _ in parsed), _value(
        Load, "load", steps=tuple(step for _, step in parsed), **values
    )


def _step(entry: Any) -> tuple[bool, Step]:
    values = _mapping(entry, "load.steps", ("rate", "seconds"))
    text = str(values.get("rate", ""))
    try:
        rate = float(text.removesuffix("x"))
    except ValueError as error:
        raise ConfigError(
            f"rate {text!r} is neither requests per second nor a multiple of the capacity such as 2x"
        ) from error
    return text.endswith("x"), Step(rate, seconds(values.get("seconds", "")))


def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _mapping(value: Any, where: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a mapping")
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{where} has no key {key!r}; {hint}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list")
    return value


def _build(kind: type[Value], values: Any, where: str) -> Value:
    return _value(kind, where, **_mapping(values, where, _names(kind)))


def _value(kind: type[Value], where: str, /, **values: Any) -> Value:
    """A dataclass of simple values, each checked against its annotation."""
    hints = get_type_hints(kind)
    for name, given in values.items():
        _check(f"{where}.{name}", given, hints[name])
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check(where: str, given: Any, hint: Any) -> None:
    if get_origin(hint) is Literal:
        if given not in get_args(hint):
            near = difflib.get_close_matches(str(given), get_args(hint), 1)
            hint_text = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{where} is {given!r}, not one of {', '.join(get_args(hint))}{hint_text}")
        return
    kinds = tuple(get_origin(one) or one for one in (get_args(hint) if isinstance(hint, UnionType) else (hint,)))
    allowed = (*kinds, int) if float in kinds else kinds
    if not isinstance(given, allowed) or (isinstance(given, bool) and bool not in kinds):
        raise ConfigError(f"{where} is {given!r}; it must be {_article(kinds[0])}")


def _article(kind: type) -> str:
    words = {float: "a number", int: "a whole number", str: "text", bool: "true or false", tuple: "a list"}
    return words.get(kind, kind.__name__)


def protocol_of(text: str) -> Protocol:
    """A protocol by name. Raises ConfigError."""
    for known in PROTOCOLS:
        if text == known:
            return known  # type: ignore[return-value]
    raise ConfigError(f"protocol {text!r} is not one of {', '.join(PROTOCOLS)}")
