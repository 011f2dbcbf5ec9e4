"""Injects faults under load and measures the effect of each on requests, every one of which is accounted for."""
