"""Changes keys of one model in a user's convoy.yaml; all other characters of the file stay unchanged.

The text is edited at the positions that PyYAML reports for its nodes. A YAML library that writes a whole document again
would change indentation, quoting and the place of comments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import yaml

from convoy.errors import ConfigError
from convoy.yaml_text import parse_yaml

LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # YAML 1.1, section 4.1.4
BYTE_ORDER_MARK = "\ufeff"
REPLACEABLE = (None, "'", '"')  # styles of scalars: a block scalar ends somewhere after its last line

Edit = tuple[int, int, str]  # replace text[start:end]; an insertion where both are equal
Outdated = Callable[[Sequence[str]], Collection[int]]  # comments to the indices of those to delete


def set_model(
    text: str,
    name: str,
    changes: Mapping[str, Any],
    remarks: Sequence[str],
    outdated: Outdated = lambda comments: (),
) -> str:
    """The text with `changes` to the keys of a model, and `remarks` as comment lines above it.

    `outdated` selects the comments to delete. It receives those above the model, from top to bottom without their #, up to
    the nearest line that is neither blank nor a comment.

    Raises ConfigError when the text does not name the model, and when it cannot be edited safely: when it holds several
    documents, or when anchors, aliases or block scalars stand where the change belongs.
    """
    try:
        document, root = parse_yaml(text), yaml.compose(text)
    except ConfigError as error:
        raise ConfigError(f"the configuration must be one valid YAML document: {error}") from error
    found = _find_model(root, name)
    if found is None:
        raise ConfigError(f"the configuration does not name the model {name!r}; add it under models")
    number, node = found
    keys = document["models"][number]
    changed = {key: value for key, value in changes.items() if key not in keys or not _equal(keys[key], value)}
    result = _apply(text, [*_remarks(text, node, remarks, outdated), *_changes(text, node, changed)])
    document["models"][number] = keys | changed
    if not _parses_to(result, document):
        wanted = ", ".join(f"{key}: {_flow(value)}" for key, value in changed.items())
        raise ConfigError(
            f"the model {name!r} cannot be edited safely: anchors, aliases, block scalars or explicit keys are in the way; "
            f"set by hand: {wanted}"
        )
    return result


def _changes(text: str, node: yaml.MappingNode, changed: Mapping[str, Any]) -> list[Edit]:
    """Edits that replace values in place and add new keys after the model's name: on its line in braces, else on new lines."""
    present = {key.value: value for key, value in node.value}
    edits = [_replacement(text, present[key], value) for key, value in changed.items() if key in present]
    added = [f"{_flow(key)}: {_flow(value)}" for key, value in changed.items() if key not in present]
    position = present["name"].end_mark.index
    if added and node.flow_style:
        edits.append((position, position, "".join(f", {pair}" for pair in added)))
    elif added:
        # In a block mapping the line of a scalar holds nothing after it but a comment.
        edits.append(_lines_after(text, position, [" " * node.value[0][0].start_mark.column + pair for pair in added]))
    return edits


def _replacement(text: str, node: yaml.Node, value: Any) -> Edit:
    start, end = node.start_mark.index, node.end_mark.index
    old = text[start:end]
    commented = old.startswith(("!", "&")) and "#" in old  # a comment between a tag or an anchor and its value
    if not isinstance(node, yaml.ScalarNode) or node.style not in REPLACEABLE or commented:
        return start, start, ""  # keeps the old value, so that the edit is refused
    return start, end, _flow(value) if text[start - 1 : start].isspace() else f" {_flow(value)}"


def _remarks(text: str, node: yaml.MappingNode, remarks: Sequence[str], outdated: Outdated) -> list[Edit]:
    """Edits that insert comments above the model's line and delete the outdated ones."""
    before = [match.end() for match in LINE_BREAK.finditer(text, 0, node.start_mark.index)]
    starts = [len(text) - len(text.removeprefix(BYTE_ORDER_MARK)), *before]
    start = starts[-1]
    line = text[start : node.start_mark.index]
    margin = " " * (len(line) - len(line.lstrip()))
    comments = _comments_above(text, starts)
    deleted = [comments[number][:2] for number in outdated([comment for _, _, comment in comments])]
    inserted = "".join(f"{margin}# {remark}{_line_break(text)}" for remark in remarks)
    return [(start, start, inserted), *((first, end, "") for first, end in deleted)]


def _comments_above(text: str, starts: Sequence[int]) -> list[tuple[int, int, str]]:
    """Start, end and text of the comment lines directly above the last of the lines that start at `starts`."""
    found = []
    for start, end in reversed(list(pairwise(starts))):
        line = text[start:end].strip()
        if line.startswith("#"):
            found.append((start, end, line[1:].strip()))
        elif line:
            break
    return found[::-1]


def _lines_after(text: str, position: int, lines: Sequence[str]) -> Edit:
    """Inserts lines below the line of a position. That line may be the last one, without a line break."""
    line_break, match = _line_break(text), LINE_BREAK.search(text, position)
    if match is None:
        return len(text), len(text), "".join(line_break + line for line in lines)
    return match.end(), match.end(), "".join(line + line_break for line in lines)


def _line_break(text: str) -> str:
    first = LINE_BREAK.search(text)
    return first[0] if first else "\n"


def _apply(text: str, edits: Sequence[Edit]) -> str:
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _flow(value: Any) -> str:
    """A value on one line, quoted so that it is valid inside braces, too."""
    listed = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"))
    return listed.strip()[1:-1]


def _equal(old: Any, new: Any) -> bool:
    """Whether two values are equal; true and 1 are not, 10 and 10.0 are."""
    return isinstance(old, bool) is isinstance(new, bool) and bool(old == new)


def _parses_to(text: str, document: Any) -> bool:
    """Whether a text parses to a document. This catches every edit that the positions alone cannot prove safe."""
    try:
        return bool(parse_yaml(text) == document)
    except (ConfigError, RecursionError):  # an alias may refer to the node that contains it
        return False


def _find_model(root: yaml.Node | None, name: str) -> tuple[int, yaml.MappingNode] | None:
    """The index of a model under `models`, and its node."""
    models = _value(root, "models")
    for number, node in enumerate(models.value if isinstance(models, yaml.SequenceNode) else []):
        named = _value(node, "name")
        if isinstance(node, yaml.MappingNode) and named is not None and named.value == name:
            return number, node
    return None


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)
