"""Faults under load: what each costs, by requests that are all accounted for."""
