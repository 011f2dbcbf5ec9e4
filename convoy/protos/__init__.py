"""Generated messages and services of both gRPC interfaces; made by `python -m convoy.protos.generate`."""
