"""The phases of a connection."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """What the connection expects next."""

    IDLE = 0  # a request
    HEAD = 1  # the rest of a head
    BODY = 2  # the rest of a body
    RESPONSE = 3  # the application's response
    DISCARD = 4  # the rest of a body whose request is already answered
    CLOSING = 5  # the client's close, once the final response is sent


IDLE, HEAD, BODY, RESPONSE, DISCARD, CLOSING = Phase  # globals: attribute access on an Enum class is slow
