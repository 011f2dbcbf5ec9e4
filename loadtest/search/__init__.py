"""Questions that take several runs: limits, sweeps, spikes, comparisons. Each takes `measure`, so each can be simulated."""
