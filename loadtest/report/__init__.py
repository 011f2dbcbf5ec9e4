"""Reports as values, and their forms: JSON, perf_analyzer's CSV, a terminal table, an HTML page."""
