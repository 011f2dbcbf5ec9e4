"""Reads YAML texts of users."""

from __future__ import annotations

from typing import Any

import yaml

from convoy.errors import ConfigError, reason_of

# PyYAML's constructors let these through for values such as `2026-99-99`, `!!int x` or an integer of 5000 digits.
MAX_BITS = 128
VALUE_ERRORS = (ValueError, ArithmeticError, KeyError, AttributeError, TypeError)


class _Loader(yaml.SafeLoader):
    """Refuses integers that Python may not write as text, which `0xff…` can hold."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = int(super().construct_yaml_int(node))
        if number.bit_length() > MAX_BITS:
            raise ValueError(f"an integer of more than {MAX_BITS} bits")
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str) -> Any:
    """The document of a YAML text. Raises ConfigError with PyYAML's text, which names the line where it can."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(str(error)) from error
    except RecursionError as error:
        raise ConfigError("it is nested too deeply") from error
    except VALUE_ERRORS as error:
        raise ConfigError(f"a value does not fit its type ({reason_of(error)})") from error
