"""Proxy settings of the environment (`http_proxy` etc.): connections to this machine bypass them."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def is_local(url: str) -> bool:
    """Whether a URL's host is this machine: localhost, loopback addresses, and 0.0.0.0 and ::, which servers print."""
    try:
        host = urlsplit(url).hostname or ""
        if host.rstrip(".") == "localhost":
            return True
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def bypass(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    """`no_proxy` variables that exclude this machine and `names`, in addition to those that the environment excludes."""
    kept = environment.get("no_proxy") or environment.get("NO_PROXY", "")
    entries = [entry.strip() for entry in kept.split(",") if entry.strip()]
    value = "*" if "*" in entries else ",".join(dict.fromkeys((*entries, *LOCAL_NAMES, *names)))
    return {"no_proxy": value, "NO_PROXY": value}  # libraries read either one
