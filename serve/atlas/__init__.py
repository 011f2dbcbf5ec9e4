"""The atlas: what networks cost on this machine, measured, and the lecture's charts of it."""
