"""Engines: graphs loaded on a device, one module per backend; builds with an accuracy check; the store of built engines."""
