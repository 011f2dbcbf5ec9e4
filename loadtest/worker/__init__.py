"""A worker process: sends its share of the requests on time and tells the parent what became of each."""
