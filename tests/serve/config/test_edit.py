from __future__ import annotations

import pytest
import yaml

from convoy.errors import ConfigError
from serve.config.edit import set_model

BLOCK = """\
# ours
listen: {http_port: 9000}   # behind the proxy
models:
  - name: a      # the small one
    placement: local

  # the large one
  - name: b
    placement: dedicated
    replicas: 2
gateways: 2
"""
FLOW = "models: [{name: a}, {name: b, replicas: 2}]  # two\n"
LINES = "models:\n- {name: a}\n- {name: b, replicas: 2}\n"


@pytest.mark.parametrize("text", [BLOCK, FLOW, LINES])
@pytest.mark.parametrize("name", ["a", "b"])
def test_one_model_changes_and_nothing_else(text: str, name: str) -> None:
    changed = set_model(text, name, {"engine": "openvino", "replicas": 3}, ["measured", "twice"])
    expected = yaml.safe_load(text)
    expected["models"]["ab".index(name)] |= {"engine": "openvino", "replicas": 3}
    assert yaml.safe_load(changed) == expected
    assert "# measured\n" in changed
    for comment in ("# ours", "# behind the proxy", "# the large one", "# two"):
        assert (comment in changed) == (comment in text)
    assert yaml.safe_load(set_model(changed, name, {"engine": "openvino", "replicas": 3}, [])) == expected


@pytest.mark.parametrize("text", ["", "models: []\n", "listen: {}\n", "models: [a]\n", BLOCK])
def test_a_model_that_is_not_named(text: str) -> None:
    with pytest.raises(ConfigError, match="does not name the model 'c'"):
        set_model(text, "c", {}, [])
