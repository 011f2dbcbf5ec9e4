"""Test-time augmentation, ensembles and cascades: views, combination rules, and how they are fitted."""
