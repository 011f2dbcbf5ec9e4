"""Other generators behind the same plans and reports."""
