"""Measurements that take several runs: limits, sweeps, spikes, comparisons. Tests simulate servers through `measure`."""
