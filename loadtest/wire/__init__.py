"""Requests and answers as bytes, and the connections that carry them."""
