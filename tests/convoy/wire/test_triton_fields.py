"""Convoy's protobuf definition of the protocol has the same fields and methods as tritonclient's."""

from __future__ import annotations

import json
import subprocess
import sys

from convoy.protos import open_inference_pb2
from tests.conftest import REPOSITORY
from tests.convoy.descriptors import read_fields, read_methods

SERVICE = "GRPCInferenceService"
# Fields of the Open Inference Protocol and KServe that tritonclient lacks.
NOT_TRITON = {
    "inference.ModelMetadataResponse.properties",
    "inference.ModelMetadataResponse.PropertiesEntry.key",
    "inference.ModelMetadataResponse.PropertiesEntry.value",
    "inference.RepositoryModelLoadResponse.model_name",
    "inference.RepositoryModelLoadResponse.isLoaded",
    "inference.RepositoryModelUnloadResponse.model_name",
    "inference.RepositoryModelUnloadResponse.isUnloaded",
}
# Runs in a separate process, because both modules register the package `inference`.
THEIRS = f"""
import json
from tests.convoy.descriptors import read_fields, read_methods
from tritonclient.grpc import model_config_pb2, service_pb2
fields = read_fields(service_pb2.DESCRIPTOR) | read_fields(model_config_pb2.DESCRIPTOR)
print(json.dumps([fields, read_methods(service_pb2.DESCRIPTOR, {SERVICE!r})]))
"""


def test_fields_and_methods_match_triton() -> None:
    done = subprocess.run([sys.executable, "-c", THEIRS], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    fields, methods = json.loads(done.stdout)
    ours = read_fields(open_inference_pb2.DESCRIPTOR)
    assert {name for name, facts in ours.items() if fields.get(name) != facts} == NOT_TRITON
    assert read_methods(open_inference_pb2.DESCRIPTOR, SERVICE).items() <= methods.items()
