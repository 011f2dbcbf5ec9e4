"""Changes one model of a convoy.yaml as people wrote it: what else stands there, and comments between models, stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from convoy.errors import ConfigError


def set_model(text: str, name: str, changes: Mapping[str, Any], remarks: Sequence[str]) -> str:
    """The text with the model's keys changed and remarks above it. Raises ConfigError when it does not name the model."""
    node = next((one for one in _models(yaml.compose(text)) if _name(one) == name), None)
    if node is None:
        raise ConfigError(f"the configuration does not name the model {name!r}; add it under models")
    start, end = node.start_mark.index, _end(node)
    present = next(one for one in yaml.safe_load(text)["models"] if one["name"] == name)
    keys = present | dict(changes)
    line = text.rfind("\n", 0, start) + 1
    margin = " " * (len(text[line:start]) - len(text[line:start].lstrip()))
    told = "".join(f"{margin}# {remark}\n" for remark in remarks)
    return text[:line] + told + text[line:start] + _render(node, keys) + text[end:]


def _render(node: yaml.MappingNode, keys: Mapping[str, Any]) -> str:
    """The keys as the node was written: in braces on a line, or a key a line."""
    if node.flow_style:
        return yaml.safe_dump(keys, sort_keys=False, width=100_000, default_flow_style=True).strip()
    lines = yaml.safe_dump(keys, sort_keys=False, width=100_000).splitlines()
    return f"\n{' ' * node.start_mark.column}".join(lines)


def _end(node: yaml.Node) -> int:
    """Where its last value ends; YAML counts the comments after that to it, too."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _models(root: yaml.Node | None) -> list[yaml.MappingNode]:
    if not isinstance(root, yaml.MappingNode):
        return []
    models = next((value for key, value in root.value if key.value == "models"), None)
    items = models.value if isinstance(models, yaml.SequenceNode) else []
    return [one for one in items if isinstance(one, yaml.MappingNode)]


def _name(node: yaml.MappingNode) -> str:
    return next((str(value.value) for key, value in node.value if key.value == "name"), "")
