"""The generator measured: what a request costs it, and whether it agrees with wrk and hey."""
