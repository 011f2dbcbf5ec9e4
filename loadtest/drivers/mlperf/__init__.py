"""MLPerf LoadGen as a driver: its scenarios against a server (HTTP, gRPC) or against an ONNX graph in this process."""
