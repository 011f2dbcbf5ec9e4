"""`python -m models.compile`: see `models.compile.compile`."""

from __future__ import annotations

from models.compile.compile import main

if __name__ == "__main__":
    main()
