"""Other servers with the same network, decoding and client, each in an environment of its own and with its makers' settings.

`python -m benchmarks.peers.install` makes the environments. Modules named `…_app` run inside them, the others beside the client.
"""
