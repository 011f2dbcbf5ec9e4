"""Loads settings from a YAML file or a mapping. Errors name the key and the remedy."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from convoy.errors import ConfigError
from convoy.yaml_text import parse_yaml
from serve.config.schema import Settings

PROBLEMS = 10  # largest number of problems that an error names


def load_settings(path: Path | None = None) -> Settings:
    """Settings of a YAML file, or the defaults. Raises ConfigError that names the key, and the nearest known one."""
    if path is None:
        return Settings()
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name an existing file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    return parse_settings({} if document is None else document, source=str(path))


def parse_settings(document: Any, source: str = "configuration") -> Settings:
    """Settings of a parsed document. Raises ConfigError."""
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        problems = [_explain(dict(problem)) for problem in error.errors()[:PROBLEMS]]
        if error.error_count() > PROBLEMS:
            problems.append(f"and {error.error_count() - PROBLEMS} more problems")
        raise ConfigError(f"{source}: " + "; ".join(problems)) from error


def _explain(problem: dict[str, Any]) -> str:
    where = ".".join(str(part)[:200] for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{where or 'document'}: {problem['msg']}"
    known = list(_model_at(problem["loc"][:-1]).model_fields)
    near = difflib.get_close_matches(str(problem["loc"][-1])[:200], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {where!r}; {hint}"


def _model_at(location: tuple[str | int, ...]) -> type[BaseModel]:
    """The configuration class at the location of a validation error."""
    model: type[BaseModel] = Settings
    for part in location:
        if isinstance(part, str):
            model = _nested(model.model_fields[part])
    return model


def _nested(field: FieldInfo) -> type[BaseModel]:
    annotation = field.annotation
    candidates = [annotation, *get_args(annotation)]
    return next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
