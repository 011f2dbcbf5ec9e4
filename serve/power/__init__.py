"""Power: where energy counters are read, and how a chip's joules are split. Knows neither Ray nor any wire."""
