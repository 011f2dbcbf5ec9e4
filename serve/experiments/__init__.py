"""Experiments: names that clients call like models. Requests are assigned to arms, which are then compared."""
