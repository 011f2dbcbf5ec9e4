"""Experiments: names that clients call like models, whose requests are assigned to arms that are then compared."""
