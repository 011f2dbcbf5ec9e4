"""Edits of a user's convoy.yaml: only the changed keys of one model differ, comments and layout stay."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import ConfigError
from serve.config.edit import set_model

COMMENTED = """\
# above everything
listen: {http_port: 9000}   # behind the proxy
# above models
models:  # all of them
  # above a
  - name: a      # the small one
    # above the placement
    placement: local   # in the gateway

    # below the placement

  # the large one
  - # after the dash
    placement: dedicated  # on hosts
    # above the name
    name: "b"   # quoted
    replicas: 2 # two of them
    # last of b
  # between
  - {name: 'c', replicas: 2, # a comment in braces
     engine: "openvino"}  # after the braces
# above ensembles
ensembles:
  - name: e  # both
    members:  # nested
      - model: a   # first
        views: [identity, # as it is
                hflip]    # mirrored
      # between members
      - {model: b}  # second
gateways: 2   # one a core
# the end
"""
BRACES = "models: [{name: a}, {name: b, replicas: 2}, {'name': c,}]  # three\n"
DASHES = "---\nmodels:\n- {name: a}\n- {replicas: 2, name: b}\n-\n  name: c\n  replicas:   # to be set\n...\n"
CHANGES = {"engine": "onnxruntime", "replicas": 3, "artifact": "a, b: {c} # d"}


def changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    """Lines removed and lines added, line breaks among them."""
    diff = list(difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True)))
    return [line[2:] for line in diff if line.startswith("- ")], [line[2:] for line in diff if line.startswith("+ ")]


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("text", [COMMENTED, BRACES, DASHES, "models:\n  - name: a\n  - name: b\n  - name: c"])
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_only_one_model_changes(text: str, name: str, end: str, line_break: str) -> None:
    text = text.rstrip("\n").replace("\n", line_break) + end.replace("\n", line_break)
    changed = set_model(text, name, CHANGES, ["measured", "twice"])
    expected = yaml.safe_load(text)
    expected["models"]["abc".index(name)] |= CHANGES
    assert yaml.safe_load(changed) == expected
    assert set_model(changed, name, CHANGES, []) == changed
    assert changed.count("#") == text.count("#") + 3  # two remarks and the one in the artifact
    assert changed.count("\n") - changed.count("\r\n") == (0 if "\r" in text else changed.count("\n"))
    assert set_model(text, name, {}, []) == text


@pytest.mark.parametrize(
    ("name", "removed", "added"),
    [
        ("a", [], ["  # why\n", "    engine: onnxruntime\n", "    replicas: 4\n"]),
        (
            "b",
            ["    replicas: 2 # two of them\n"],
            ["    # why\n", "    engine: onnxruntime\n", "    replicas: 4 # two of them\n"],
        ),
        (
            "c",
            ["  - {name: 'c', replicas: 2, # a comment in braces\n", '     engine: "openvino"}  # after the braces\n'],
            [
                "  # why\n",
                "  - {name: 'c', replicas: 4, # a comment in braces\n",
                "     engine: onnxruntime}  # after the braces\n",
            ],
        ),
    ],
)
def test_the_diff_holds_only_the_keys_that_changed(name: str, removed: list[str], added: list[str]) -> None:
    changed = set_model(COMMENTED, name, {"engine": "onnxruntime", "replicas": 4}, ["why"])
    assert changed_lines(COMMENTED, changed) == (removed, added)


def starts_with_old(comments: Sequence[str]) -> set[int]:
    return {number for number, comment in enumerate(comments) if comment.startswith("old")}


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "models:\n  # old\n  - name: a # old\n  # mine\n\n  # old\n  #old\n    # mine, too\n  - name: b\n  # old\n",
            "models:\n  # old\n  - name: a # old\n  # mine\n\n    # mine, too\n  # new\n  - name: b\n    replicas: 2\n  # old\n",
        ),
        ("# old 1\nmodels: [{name: a}, {name: b}]\n", "# new\nmodels: [{name: a}, {name: b, replicas: 2}]\n"),
        ("\ufeff# old 1\n{models: [{name: b}]}\n", "\ufeff# new\n{models: [{name: b, replicas: 2}]}\n"),
    ],
)
def test_outdated_remarks_are_replaced(text: str, expected: str, line_break: str) -> None:
    text, expected = text.replace("\n", line_break), expected.replace("\n", line_break)
    changed = set_model(text, "b", {"replicas": 2}, ["new"], starts_with_old)
    assert changed == expected


def test_outdated_remarks_inside_a_value_are_refused() -> None:
    text = "models:\n  - name: a\n    note: |\n      # old 1\n  - name: b\n"
    with pytest.raises(ConfigError, match="set by hand: replicas: 2"):
        set_model(text, "b", {"replicas": 2}, ["new"], starts_with_old)


@pytest.mark.parametrize(
    "text",
    [
        "models:\n  - &one\n    name: a\n    replicas: 2\n  - *one\n",
        "models:\n  - &one {name: a, replicas: 2}\n  - {<<: *one, name: b}\n",
        "models:\n  - {name: a, replicas: &few 2}\n  - {name: b, replicas: *few}\n",
        "models:\n  - {name: b, replicas: &few 2}\n  - {name: a, replicas: *few}\n",
        "models:\n  - name: a\n    replicas: >-\n      2\n",
        "models:\n  - ? name\n    : a\n    ? replicas\n",
        "models: [name: a]\n",
        "models:\n  - name: a\n    replicas: !!int # why\n      2\n",
        "models:\n  - name: a\n    replicas: &few # why\n      2\n",
    ],
)
def test_the_error_of_an_unsafe_edit_names_the_values_to_set_by_hand(text: str) -> None:
    with pytest.raises(ConfigError, match="set by hand: replicas: 3, engine: openvino"):
        set_model(text, "a", {"replicas": 3, "engine": "openvino"}, [])


def test_a_byte_order_mark_stays_first() -> None:
    changed = set_model("\ufeff{models: [{name: a}]}\n", "a", {"replicas": 3}, ["why"])
    assert changed == "\ufeff# why\n{models: [{name: a, replicas: 3}]}\n"


def test_an_equal_number_is_not_rewritten() -> None:
    text = "models:\n  - name: a\n    target_ms: 10\n    replicas: true\n"
    assert set_model(text, "a", {"target_ms": 10.0, "replicas": 1}, []) == text.replace("true", "1")


def test_anchors_elsewhere_do_not_prevent_an_edit() -> None:
    text = "x: &few 2\nmodels:\n  - &one\n    name: a # one\n    replicas: *few\n  - {<<: *one, name: b}\n"
    changed = set_model(text, "b", {"replicas": 3}, ["why"])
    assert changed_lines(text, changed) == (
        ["  - {<<: *one, name: b}\n"],
        ["  # why\n", "  - {<<: *one, name: b, replicas: 3}\n"],
    )


@pytest.mark.parametrize("text", ["models: [{name: a}]\n---\nmodels: [{name: a}]\n", "models: [\n", "models: [*a]\n"])
def test_invalid_yaml_and_several_documents_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be one valid YAML document"):
        set_model(text, "a", {"replicas": 3}, [])


@pytest.mark.parametrize("text", ["", "models: []\n", "listen: {}\n", "models: [a]\n", "[]", BRACES])
def test_a_model_that_the_file_does_not_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="does not name the model 'd'"):
        set_model(text, "d", {}, [])


KEYS = ("replicas", "engine", "note", "views")
SCALARS = st.sampled_from(["2", "'two'", '"t\\"wo"', "true", "a#b", "0x10", "~", ""])
LISTS = st.sampled_from(["[a, b]", "[]", "{x: 1, y: [2, 3]}", "\n      - a # x\n      - [b, c]"])
COMMENTS = st.sampled_from(["", " # why", "   # name: b", "  # {x: [#"])
ABOVE = st.sampled_from([[], [""], ["    # - name: b"], ["# deep", "", "      # deeper"]])


@st.composite
def models(draw: st.DrawFn, name: str) -> list[str]:
    """Lines of a model, in braces or with one key on each line, with keys in any order and comments anywhere."""
    keys = draw(st.permutations(["name", *draw(st.lists(st.sampled_from(KEYS), unique=True))]))
    values = {key: draw(LISTS if key == "views" else SCALARS) for key in keys} | {"name": name}
    if draw(st.booleans()):
        pairs = ", ".join(f"{key}: {value}" for key, value in values.items() if "\n" not in value)
        return [*draw(ABOVE), f"  - {{{pairs}}}{draw(COMMENTS)}"]
    lines = []
    for number, (key, value) in enumerate(values.items()):
        lines += draw(ABOVE)
        text = f"{'  - ' if number == 0 else '    '}{key}: {value}{draw(COMMENTS)}"
        lines += text.split("\n")
    return lines


@given(
    written=st.tuples(models("a"), models("b"), models("c")),
    changes=st.dictionaries(st.sampled_from(KEYS[:3]), st.sampled_from([1, 2.5, True, "a: b", "#"]), min_size=1),
    line_break=st.sampled_from(["\n", "\r\n"]),
    end=st.booleans(),
)
def test_every_line_without_a_changed_key_stays(
    written: tuple[list[str], ...], changes: dict[str, object], line_break: str, end: bool
) -> None:
    lines = ["# first", "models:", *(line for model in written for line in model), "gateways: 2"]
    text = line_break.join(lines) + line_break * end
    changed = set_model(text, "b", changes, ["measured"])
    expected = yaml.safe_load(text)
    expected["models"][1] |= changes
    assert yaml.safe_load(changed) == expected
    removed, _ = changed_lines(text, changed)
    assert all(any(f"{key}:" in line for key in changes) or "{" in line for line in removed)
    for line in removed:
        assert line.partition(" #")[2] in changed  # the comment at the end of a changed line
    others = [line for line in text.splitlines(keepends=True) if line not in removed]
    remaining = iter(changed.splitlines(keepends=True))
    assert all(line in remaining for line in others)  # in their order
