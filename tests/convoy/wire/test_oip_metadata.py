"""Metadata, statistics and the repository index on both protocols."""

from __future__ import annotations

import orjson
import pytest
from google.protobuf.json_format import MessageToDict, ParseError

from convoy.protos import open_inference_pb2 as pb
from convoy.wire import oip_metadata
from convoy.wire.oip_metadata import (
    BatchSpans,
    InferSpans,
    ModelInfo,
    ModelStatistics,
    RepositoryEntry,
    ServerInfo,
    Span,
    TensorInfo,
    to_message,
)
from convoy.wire.tensors import BYTES, LAYOUT

MODEL = ModelInfo(
    "m",
    ("1", "2"),
    "onnxruntime_onnx",
    "onnxruntime",
    (TensorInfo("image", BYTES, (-1, 1)),),
    (TensorInfo("logits", "FP32", (-1, 10)),),
    32,
    {"dataset": "mnist"},
)


def test_health_bodies_have_the_fields_of_every_client() -> None:
    assert oip_metadata.live(True) == {"live": True}
    assert oip_metadata.ready(True) == {"ready": True, "live": True}
    assert oip_metadata.ready(False, "draining") == {"ready": False, "live": False, "error": "draining"}
    assert oip_metadata.model_ready("m", True) == {"name": "m", "ready": True}
    refused = oip_metadata.model_ready("m", False)
    assert refused == {"name": "m", "ready": False, "error": "m is not ready"}


def test_server_metadata_is_the_same_on_both_protocols() -> None:
    document = oip_metadata.server_metadata(ServerInfo("convoy", "0.1.0", ("binary_tensor_data",)))
    assert document == {"name": "convoy", "version": "0.1.0", "extensions": ["binary_tensor_data"]}
    assert MessageToDict(to_message(document, pb.ServerMetadataResponse())) == document


def test_model_metadata_is_the_same_on_both_protocols() -> None:
    document = oip_metadata.model_metadata(MODEL)
    assert document["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}]
    message = to_message(document, pb.ModelMetadataResponse())
    assert list(message.inputs[0].shape) == [-1, 1]
    assert message.properties["dataset"] == "mnist"


def test_model_config_has_the_fields_that_tools_read() -> None:
    document = oip_metadata.model_config(MODEL)
    assert document["max_batch_size"] == 32
    assert document["input"] == [{"name": "image", "data_type": "TYPE_STRING", "dims": [1]}]
    assert document["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": [10]}]
    assert document["dynamic_batching"] == {"preferred_batch_size": [32]}
    message = to_message(document, pb.ModelConfig())
    assert message.input[0].data_type == pb.TYPE_STRING
    assert not message.model_transaction_policy.decoupled


@pytest.mark.parametrize("datatype", [*LAYOUT, BYTES])
def test_every_datatype_has_a_name_in_the_config(datatype: str) -> None:
    tensor = TensorInfo("x", datatype, (3, 4))
    model = ModelInfo("m", ("1",), "p", "b", (tensor,), (tensor,), max_batch=0)
    document = oip_metadata.model_config(model)
    assert "dynamic_batching" not in document
    assert list(to_message(document, pb.ModelConfig()).input[0].dims) == [3, 4]


def test_statistics_are_the_same_on_both_protocols() -> None:
    span = Span(3, 4_000)
    statistics = ModelStatistics("m", "1", 5, 7, 3, InferSpans(success=span), (BatchSpans(2, span, span, span),))
    document = oip_metadata.model_statistics([statistics])
    assert orjson.loads(orjson.dumps(document))["model_stats"][0]["inference_stats"]["success"] == {
        "count": 3,
        "ns": 4_000,
    }
    message = to_message(document, pb.ModelStatisticsResponse())
    assert message.model_stats[0].batch_stats[0].compute_infer.ns == 4_000
    assert message.model_stats[0].inference_count == 7


def test_the_index_is_a_list_over_http_and_a_field_over_grpc() -> None:
    index = oip_metadata.repository_index(
        [RepositoryEntry("m", "1", "READY"), RepositoryEntry("n", "1", "UNAVAILABLE", "x")]
    )
    assert index[1] == {"name": "n", "version": "1", "state": "UNAVAILABLE", "reason": "x"}
    message = to_message({"models": index}, pb.RepositoryIndexResponse())
    assert [model.state for model in message.models] == ["READY", "UNAVAILABLE"]


def test_a_field_that_the_message_lacks_is_an_error() -> None:
    with pytest.raises(ParseError):
        to_message({"nmae": "m"}, pb.ModelConfig())
