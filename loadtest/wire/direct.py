"""Connects directly and ignores the environment's proxies: a proxy would be measured together with the server."""

from __future__ import annotations

from urllib.request import ProxyHandler, build_opener

CHANNEL = ("grpc.enable_http_proxy", 0)

fetch = build_opener(ProxyHandler({})).open  # a drop-in for urllib's `urlopen`
