"""Reading answers of all protocols, and the names of outcomes."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.protos import classifier_pb2, open_inference_pb2
from loadtest.payloads.item import Expected
from loadtest.plan import PROTOCOLS
from loadtest.scenario import protocol_of
from loadtest.wire.answers import Answer, reader_for
from loadtest.wire.outcomes import GRPC, RESET, is_ok, outcome_name


@pytest.mark.parametrize(
    ("expected", "correct"),
    [((3,), 1), (("cat",), 1), ((4,), 0), (("dog",), 0), ((None,), 0), ((3, "dog"), 2), (("dog", 3), 0)],
)
def test_numbers_are_compared_with_classes_and_text_with_labels(expected: tuple[Expected, ...], correct: int) -> None:
    assert Answer(((3, "cat"), (5, "dog"))).correct(expected) == correct


def test_classification_answers_have_classes_arm_id_and_stages() -> None:
    document = {
        "id": "7",
        "arm": "b",
        "predictions": [{"classes": [{"index": 3, "label": "cat"}]}],
        "timings_ms": {"run": 1.5},
    }
    assert reader_for("classify")(orjson.dumps(document), None) == Answer(((3, "cat"),), "b", "7", {"run": 1.5})


def test_open_inference_answers_have_scores_or_classification_strings() -> None:
    read = reader_for("oip")
    scores = {"outputs": [{"name": "o", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 0.9, 0.8, 0.2]}], "id": "x"}
    assert read(orjson.dumps(scores), None) == Answer(((1, ""), (0, "")), "", "x")
    top = {
        "outputs": [
            {
                "name": "o",
                "datatype": "BYTES",
                "shape": [2, 2],
                "data": ["0.9:4:cat", "0.1:2:a:b", "0.7:2:a:b", "0.2:4"],
            }
        ]
    }
    assert read(orjson.dumps(top), None).classes == ((4, "cat"), (2, "a:b"))


def test_raw_answers_without_probabilities_have_no_classes() -> None:
    read = reader_for("raw")
    assert read(b'{"cat": 0.2, "dog": 0.8}', None).classes == ((-1, "dog"),)
    assert read(b"plain text", None).classes == ()
    assert read(b"[1, 2]", None).classes == ()


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "raw"])
@given(
    body=st.binary(max_size=60)
    | st.sampled_from(
        [b"{}", b"[]", b"null", b'{"outputs":[]}', b'{"predictions":[{}]}', b'{"outputs":[{"name":"o"}]}']
    )
)
def test_answers_outside_the_protocol_raise_only_value_errors(protocol: str, body: bytes) -> None:
    for length in (None, 0, 2, 10**6):
        try:
            reader_for(protocol_of(protocol))(body, length)
        except ValueError:
            continue


def test_grpc_answers_are_read() -> None:
    message = open_inference_pb2.ModelInferResponse(id="1", raw_output_contents=[b"\0\0\0\0\0\0\x80\x3f"])
    message.outputs.add(name="o", datatype="FP32", shape=[1, 2])
    message.parameters["arm"].string_param = "b"
    assert reader_for("grpc")(message.SerializeToString(), None) == Answer(((1, ""),), "b", "1")
    typed = open_inference_pb2.ModelInferResponse()
    typed.outputs.add(name="o", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([0.9, 0.1])
    assert reader_for("grpc")(typed.SerializeToString(), None).classes == ((0, ""),)
    answer = classifier_pb2.ClassifyResponse(id="2")
    answer.predictions.add().classes.add(index=3, label="cat")
    assert reader_for("grpc-classify")(answer.SerializeToString(), None).classes == ((3, "cat"),)


def test_outcomes_have_names() -> None:
    assert [outcome_name(code) for code in (200, 503, GRPC, GRPC + 8, RESET)] == [
        "HTTP 200", "HTTP 503", "gRPC OK", "gRPC RESOURCE_EXHAUSTED", "reset: connection lost before the answer",
    ]  # fmt: skip
    assert [is_ok(code) for code in (200, 204, 301, 404, GRPC, GRPC + 1, RESET)] == [
        True,
        True,
        False,
        False,
        True,
        False,
        False,
    ]
