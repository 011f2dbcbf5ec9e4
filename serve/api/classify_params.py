"""Parameters of a classify request, from a query, a form, JSON or protobuf."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convoy.errors import InvalidInput, shown

MAX_ID = 128
ID = re.compile(f"[ -~]{{0,{MAX_ID}}}")  # an id is returned in a header and written to logs
WHOLE = re.compile(r"[0-9]{1,9}")
DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,20})?(e-?[0-9]{1,3})?", re.IGNORECASE)
FLAGS = {"true": True, "false": False}


class ClassifyParams(BaseModel):
    """The options of the response. Descriptions complete the error text "NAME is VALUE; it must be …"."""

    model_config = ConfigDict(frozen=True, strict=True)

    top_k: int = Field(5, ge=1, description="a whole number of at least 1")  # most classes of an image
    threshold: float = Field(0.0, ge=0, le=1, description="a number from 0 to 1")  # least probability of a class
    labels: bool = Field(True, description="true or false")  # false: class indices alone
    energy: bool = Field(False, description="true or false")  # adds the energy of the answer
    id: str = Field(
        "", pattern=f"^{ID.pattern}$", description=f"a string of at most {MAX_ID} printable ASCII characters"
    )


DEFAULTS = ClassifyParams()
RULES = {name: field.description for name, field in ClassifyParams.model_fields.items()}


def parse_params(fields: Mapping[str, Any], base: ClassifyParams = DEFAULTS) -> ClassifyParams:
    """`base` with the typed fields that are present; unknown fields are ignored. Raises InvalidInput."""
    changes = {name: fields[name] for name in RULES if name in fields}
    if not changes:
        return base
    try:
        return ClassifyParams.model_validate({**base.__dict__, **changes})
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][0])
        raise _refused(name, changes[name]) from error


def parse_text_params(fields: Mapping[str, str], base: ClassifyParams = DEFAULTS) -> ClassifyParams:
    """As `parse_params` for text fields of a query or a form. An empty string counts as absent."""
    return parse_params({name: _typed(name, text) for name, text in fields.items() if text}, base)


def _typed(name: str, text: str) -> Any:
    if name == "top_k" and WHOLE.fullmatch(text):
        return int(text)
    if name == "threshold" and DECIMAL.fullmatch(text):
        return float(text)
    if name in ("labels", "energy"):
        return FLAGS.get(text, text)
    return text


def check_flag(name: str, value: Any) -> bool:
    """A boolean of a request, a field of ClassifyParams. Raises InvalidInput."""
    if not isinstance(value, bool):
        raise _refused(name, value)
    return value


def check_id(value: str) -> str:
    """A request id. Raises InvalidInput."""
    if not ID.fullmatch(value):
        raise _refused("id", value)
    return value


def _refused(name: str, value: Any) -> InvalidInput:
    return InvalidInput(f"{name} is {shown(value)}; it must be {RULES[name]}")
