"""Faults under load: the effect of each on requests, all of which are accounted for."""
