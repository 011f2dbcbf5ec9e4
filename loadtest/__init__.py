"""A load generator that knows only the wire: open loop first, every request accounted for, a verdict on every number."""
