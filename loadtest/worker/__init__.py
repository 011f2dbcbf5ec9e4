"""A worker process: sends its share of the requests on time and reports the outcome of each to the parent."""
