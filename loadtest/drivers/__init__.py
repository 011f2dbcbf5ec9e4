"""Other load generators, driven by the same plans and with the same reports."""
