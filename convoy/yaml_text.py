"""Reads YAML texts of users."""

from __future__ import annotations

from typing import Any

import yaml

from convoy.errors import ConfigError, reason_of

# PyYAML's constructors let these through for values such as `2026-99-99`, `!!int x` or an integer of 5000 digits.
VALUE_ERRORS = (ValueError, ArithmeticError, KeyError, AttributeError, TypeError)


def parse_yaml(text: str) -> Any:
    """The document of a YAML text. Raises ConfigError with PyYAML's text, which names the line where it can."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(str(error)) from error
    except RecursionError as error:
        raise ConfigError("it is nested too deeply") from error
    except VALUE_ERRORS as error:
        raise ConfigError(f"a value does not fit its type ({reason_of(error)})") from error
