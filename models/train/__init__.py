"""Training: recipes as data, one seeded and resumable loop."""
