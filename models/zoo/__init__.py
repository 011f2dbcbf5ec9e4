"""Architectures, one family per file, each in the same order: blocks, network, builders."""
