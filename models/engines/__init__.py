"""Engines: graphs loaded on a device, one module per backend, and the factory that builds them once and proves them right."""
