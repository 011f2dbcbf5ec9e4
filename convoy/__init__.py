"""What a client of Convoy needs: wire types, a client, the command line. Imports neither Ray nor torch."""

__version__ = "0.1.0"
