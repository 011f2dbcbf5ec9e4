"""A load generator for HTTP and gRPC: open loop by default, every request accounted for, every result with a verdict."""
