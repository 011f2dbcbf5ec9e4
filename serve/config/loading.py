"""Loads settings from a YAML file or a mapping. Errors name the key and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from convoy.errors import ConfigError
from convoy.validation import explain_without_values
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
        raise ConfigError(f"{source}: {explain_without_values(error, Settings, PROBLEMS)}") from error
