"""Requests that are nearly valid: documents, forms, headers and messages with some parts replaced, by a grammar of each API."""

from __future__ import annotations

import base64
import gzip
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from convoy.protos import classifier_pb2, experiments_pb2, open_inference_pb2
from tests.fuzz.values import MODEL, NUMBERS, SPARE, TENSOR, TEXTS, Values

DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES",
    "uint8", "", "COMPLEX64",
)  # fmt: skip
CHARSETS = (
    "utf-8", "latin-1", "utf-16", "utf-7", "utf-32-le", "idna", "punycode", "undefined", "hex", "rot13", "unicode_escape",
    "raw_unicode_escape", "cp037", "mbcs", "\x00", "x" * 300,
)  # fmt: skip
METHODS = {
    "/convoy.v1.Classifier/Classify": (classifier_pb2.ClassifyRequest, False),
    "/convoy.v1.Classifier/ClassifyStream": (classifier_pb2.ClassifyRequest, True),
    "/convoy.v1.Experiments/SendFeedback": (experiments_pb2.FeedbackRequest, False),
    **{
        f"/inference.GRPCInferenceService/{method.name}": (GetMessageClass(method.input_type), method.name == "ModelStreamInfer")
        for method in open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    },
}  # fmt: skip


@dataclass(frozen=True)
class HttpRequest:
    """A request over HTTP."""

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes

    def raw(self, host: str, key: str) -> bytes:
        """Its bytes on the wire. Headers named `key` are replaced by the administrator's key."""
        lines = [b"%s %s HTTP/1.1" % (self.method.encode(), self.target), b"host: " + host.encode()]
        lines += [name + b": " + (key.encode() if value == b"KEY" else value) for name, value in self.headers]
        return b"\r\n".join([*lines, b"content-length: %d" % len(self.body), b"", self.body])


@dataclass(frozen=True)
class GrpcCall:
    """A call over gRPC: serialised messages, one unless the method takes a stream."""

    method: str
    messages: Sequence[bytes]
    streams: bool
    metadata: Sequence[tuple[str, str]] = ()


class Grammar(Values):
    """Makes requests. The same seed gives the same requests."""

    def request(self) -> HttpRequest | GrpcCall:
        """The next request."""
        return self.call() if self._rng.random() < 0.3 else self.http()

    # Documents

    def _base64(self) -> str:
        return base64.b64encode(self._image()).decode()

    def _options(self) -> dict[str, Any]:
        return {"top_k": 3, "threshold": 0.1, "labels": True, "energy": False, "id": "mine"}

    def classify(self) -> Any:
        return {"images": [self._base64() for _ in range(self._rng.randint(1, 3))], **self._options()}

    def kserve(self) -> Any:
        pixels = self._rng.choice(([[0] * 8] * 8, [[[1, 2, 3]] * 8] * 8, [[[1]] * 4] * 4))
        instances = [{"b64": self._base64()}, {"image_bytes": {"b64": self._base64()}}, self._base64(), pixels]
        return {"instances": self._rng.choices(instances, k=self._rng.randint(1, 3)), "id": "mine"}

    def tensors(self) -> tuple[Any, bytes]:
        """An infer request, and the binary data that follow it."""
        rng = self._rng
        image, pixels = self._image(), bytes(28 * 28)
        entries: list[tuple[dict[str, Any], bytes]] = [
            ({"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1], "data": [0] * 28 * 28}, b""),
            ({"name": "image", "datatype": "BYTES", "shape": [1], "data": [self._base64()]}, b""),
            ({"name": "image", "datatype": "BYTES", "shape": [1, 1]}, struct.pack("<I", len(image)) + image),
            ({"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1]}, pixels),
            ({"name": "input", "datatype": "FP32", "shape": [1, 1, 32, 32]}, bytes(4 * 32 * 32)),
            ({"name": "input", "datatype": "FP32", "shape": [1, 1, 32, 32], "data": [[[[0.5] * 32] * 32]]}, b""),
        ]
        entry, tail = rng.choice(entries)
        entry = dict(entry)
        if self._rare(0.2):
            entry["datatype"] = rng.choice(DATATYPES)
        if tail:
            entry["parameters"] = {"binary_data_size": len(tail)}
        outputs = [{"name": "logits", "parameters": {"classification": 3, "binary_data": rng.random() < 0.5}}]
        parameters = {"timeout": 1_000_000, "priority": 1, "energy": True, "binary_data_output": rng.random() < 0.5}
        document: dict[str, Any] = {"id": "mine", "inputs": [entry], "outputs": outputs, "parameters": parameters}
        return {key: document[key] for key in document if key == "inputs" or rng.random() < 0.6}, tail

    def feedback(self) -> Any:
        item = {"id": "mine", "position": 0, "label": 3, "reward": 0.5, "experiment": ""}
        return self._rng.choice(({"feedback": [item, dict(item)]}, item, [item]))

    def experiment(self) -> Any:
        arms = [{"name": "a", "model": MODEL, "share": 0.5}, {"name": "b", "model": MODEL, "share": 0.5}]
        return {"name": "trial", "arms": arms, "control": "a", "mode": "split", "metric": "accuracy"}

    def repository(self) -> Any:
        parameters = {"config": "{}", "unload_dependents": False, "file:1/model.onnx": "AAAA"}
        return self._rng.choice(({"ready": True}, {"parameters": {}}, {"parameters": parameters}, {}))

    # HTTP

    def form(self) -> tuple[bytes, bytes]:
        """A form and its Content-Type."""
        rng = self._rng
        boundary = (
            rng.choice((b"a" * 70, b"a" * 300, b"", b" ", b"\xff", b"'()+_,-./:=?")) if self._rare(0.2) else b"xxx"
        )
        parts = []
        for _ in range(rng.randint(0, 5)):
            good = (b'form-data; name="image"; filename="a.png"', b'form-data; name="top_k"', b'form-data; name="id"')
            odd = (
                b'form-data; name="threshold"', b"form-data", b'form-data; filename="a"', b"attachment; name=x", b"",
                b'form-data; name="\xff\xfe"', b'form-data; name="x"; filename*=utf-8\'\'%ff', b'form-data; name="a;b\\"c"',
            )  # fmt: skip
            disposition = rng.choice(odd if self._rare(0.2) else good)
            text = rng.choice(TEXTS).encode("utf-8", "replace")
            content = (
                self._image() if b"image" in disposition else rng.choice((b"3", b"", b"\xff\xfe", b"\\ud800", text))
            )
            head = (
                b"Content-Disposition: "
                + disposition
                + rng.choice((b"", b"\r\nContent-Type: text/plain; charset=utf-16"))
            )
            parts.append(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n")
        body = b"".join(parts) + rng.choice((b"--" + boundary + b"--\r\n", b"", b"--" + boundary))
        kind = b"multipart/form-data; boundary=" + rng.choice((boundary, b'"' + boundary + b'"'))
        if self._rare(0.3):
            kind += b"; charset=" + rng.choice(CHARSETS).replace("\x00", "").encode()
        return (self.damaged(body) if self._rare() else body), kind

    def query(self) -> bytes:
        """A query with its question mark, or nothing."""
        rng = self._rng
        if rng.random() < 0.7:
            return b""
        names = ("top_k", "threshold", "labels", "energy", "id", "seconds", "x", "")
        values = (*NUMBERS, *TEXTS)
        pairs = [f"{rng.choice(names)}={_quoted(rng.choice(values))}" for _ in range(rng.choice((1, 2, 3, 40)))]
        return b"?" + rng.choice(("&", ";", "&&")).join(pairs).encode()[:3000]

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Some of the headers that the server reads, with likely and unlikely values."""
        rng = self._rng
        numbers = [number.encode() for number in NUMBERS if len(number) < 6000]
        plain = [text.encode("utf-8", "replace") for text in TEXTS]
        texts = [text for text in plain if not set(text) & set(b"\0\r\n\x7f")]
        encodings = (
            b"gzip",
            b"deflate",
            b"identity",
            b"br",
            b"gzip;q=0",
            b"*",
            b"identity;q=0",
            b"gzip ; q = 1",
            b"",
            b",;=",
        )
        choices: dict[bytes, Sequence[bytes]] = {
            b"x-request-id": texts,
            b"x-request-timeout-ms": (*numbers, b"20000"),
            b"x-request-priority": numbers,
            b"accept-encoding": encodings,
            b"traceparent": (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", *texts),
            b"authorization": (b"Bearer KEY", b"Bearer", b"Basic x", *texts),
            b"x-api-key": texts,
            b"accept": texts,
            b"expect": (b"100-continue", b"200-ok"),
            b"origin": (b"http://here", b"null"),
            b"cookie": texts,
            b"range": (b"bytes=0-1", b"bytes=-", b"x"),
            b"if-none-match": texts,
            b"if-modified-since": (b"Sun, 29 Nov 2026 21:23:46 GMT", b"Sun, 99 Nov 99999 99:99:99 GMT", *texts),
        }
        names = rng.sample(sorted(choices), rng.choice((0, 0, 1, 1, 2, 4)))
        return [(name, rng.choice(choices[name])) for name in names]

    def http(self) -> HttpRequest:
        """A request over HTTP."""
        rng = self._rng
        make = rng.choice(
            (self._classify, self._classify, self._predict, self._infer, self._infer, self._change, self._other)
        )
        method, path, kind, body, more = make()
        headers = self.headers() + more
        if kind is not None:
            kind = (
                rng.choice((kind, kind.upper(), b" " + kind, kind + b";charset=utf-8", b"text/plain", b""))
                if self._rare(0.1)
                else kind
            )
            headers.append((b"content-type", kind))
        if self._rare(0.15):
            body, coding = self._encoded(body)
            headers.append((b"content-encoding", coding))
        path = path.replace(
            "MODEL",
            rng.choice((MODEL, MODEL, MODEL, MODEL, TENSOR, SPARE))
            if not self._rare(0.1)
            else rng.choice(("typo", "%00", "a%2Fb")),
        )
        path = path.replace(
            "VERSION", "1" if not self._rare(0.2) else rng.choice(("2", "01", "9" * 5000, "-1", "x", "%d9%a1"))
        )
        return HttpRequest(method, path.encode() + self.query(), headers, body)

    def _encoded(self, body: bytes) -> tuple[bytes, bytes]:
        once = gzip.compress(body, mtime=0)
        encoded = self._rng.choice((once, once * 2, zlib.compress(body), body))
        coding = self._rng.choice(
            (b"gzip", b"deflate", b"identity", b"", b"gzip, deflate", b"X-GZIP", b"br", b"gzip,gzip,gzip")
        )
        return (self.damaged(encoded) if self._rare(0.2) else encoded), coding

    def _classify(self) -> tuple[str, str, bytes | None, bytes, list[tuple[bytes, bytes]]]:
        path = self._rng.choice(
            (
                "/v1/models/MODEL/classify",
                "/v1/models/MODEL/versions/VERSION/classify",
                "/predictions/MODEL",
                "/predictions/MODEL/VERSION",
            )
        )
        kind = self._rng.randrange(3)
        if kind == 0:
            return (
                "POST",
                path,
                self._rng.choice((None, b"image/png", b"application/x-www-form-urlencoded")),
                self._image(),
                [],
            )
        if kind == 1:
            return "POST", path, b"application/json", self.json(self.classify()), []
        body, content_type = self.form()
        return "POST", path, content_type, body, []

    def _predict(self) -> tuple[str, str, bytes | None, bytes, list[tuple[bytes, bytes]]]:
        path = self._rng.choice(("/v1/models/MODEL:predict", "/v1/models/MODEL/versions/VERSION:predict"))
        return "POST", path, b"application/json", self.json(self.kserve()), []

    def _infer(self) -> tuple[str, str, bytes | None, bytes, list[tuple[bytes, bytes]]]:
        path = self._rng.choice(("/v2/models/MODEL/infer", "/v2/models/MODEL/versions/VERSION/infer"))
        document, tail = self.tensors()
        text = self.json(document)
        if not tail and self._rng.random() < 0.8:
            return "POST", path, b"application/json", text, []
        length = b"%d" % len(text) if not self._rare(0.2) else self._rng.choice(NUMBERS).encode()
        return "POST", path, b"application/octet-stream", text + tail, [(b"inference-header-content-length", length)]

    def _change(self) -> tuple[str, str, bytes | None, bytes, list[tuple[bytes, bytes]]]:
        rng, names = self._rng, (SPARE, SPARE, "typo", "%00", "x" * 3000)
        change = rng.choice((
            ("/v2/repository/index", self.repository()),
            (f"/v2/repository/models/{rng.choice(names)}/{rng.choice(('load', 'load', 'unload'))}", self.repository()),
            ("/v1/feedback", self.feedback()),
            ("/v1/experiments", self.experiment()),
            (f"/v1/experiments/{rng.choice(names)}/{rng.choice(('ramp', 'stop', 'promote'))}", {"arm": "a", "stage": 1}),
        ))  # fmt: skip
        key = [] if self._rare(0.2) else [(b"x-api-key", b"KEY")]
        return "POST", change[0], b"application/json", self.json(change[1]), key

    def _other(self) -> tuple[str, str, bytes | None, bytes, list[tuple[bytes, bytes]]]:
        rng = self._rng
        paths = (
            "/", "/v1/models", "/v1/models/MODEL", "/v2/models/MODEL", "/v2/models/MODEL/versions/VERSION/ready",
            "/v2/models/MODEL/config", "/v2/models/MODEL/stats", "/v2/models/MODEL/versions/VERSION/stats", "/v2/models/stats",
            "/v1/experiments", "/v1/experiments/trial", "/v1/experiments/trial/report", "/openapi.json", "/v2",
            "/v2/health/ready", "/page/page.js", "/page/../../../etc/passwd", "/page/%2e%2e/%2e%2e/x", "/samples/x%00y",
            "/samples/" + "x" * 400, "/ping", "/" + "%ff" * 20,
        )  # fmt: skip
        return rng.choice(("GET", "GET", "HEAD", "OPTIONS", "DELETE", "PUT", "POST")), rng.choice(paths), None, b"", []

    # gRPC

    def call(self) -> GrpcCall:
        """A call over gRPC."""
        rng = self._rng
        method = rng.choice((*METHODS, *[name for name in METHODS if "Infer" in name or "Classify" in name] * 2))
        kind, streams = METHODS[method]
        messages = [self._serialised(kind) for _ in range(rng.randint(1, 3) if streams else 1)]
        metadata = [("authorization", "KEY")] if "Repository" in method or self._rare() else []
        return GrpcCall(method, messages, streams, metadata)

    def _serialised(self, kind: type[Message]) -> bytes:
        message: Any = self.message(kind.DESCRIPTOR)
        if (
            kind is open_inference_pb2.RepositoryModelUnloadRequest
        ):  # or all later requests would end at a missing model
            message.ClearField("repository_name")
            message.model_name = self._rng.choice((SPARE, "typo", "\0"))
        if kind is classifier_pb2.ClassifyRequest and self._rng.random() < 0.7:
            message.MergeFrom(classifier_pb2.ClassifyRequest(model=MODEL, images=[self._image()]))
        if kind is open_inference_pb2.ModelInferRequest and self._rng.random() < 0.7:
            message.MergeFrom(self._infer_message())
        data: bytes = message.SerializeToString(deterministic=True)
        return self.damaged(data) if self._rare(0.1) else data

    def _infer_message(self) -> open_inference_pb2.ModelInferRequest:
        image = self._image()
        request = open_inference_pb2.ModelInferRequest(model_name=self._rng.choice((MODEL, TENSOR)))
        name, datatype, shape, data = self._rng.choice((
            ("image", "UINT8", [1, 28, 28, 1], bytes(28 * 28)), ("input", "FP32", [1, 1, 32, 32], bytes(4096)),
            ("image", "BYTES", [1], struct.pack("<I", len(image)) + image),
        ))  # fmt: skip
        entry = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if datatype == "BYTES" and self._rng.random() < 0.5:
            entry.contents.bytes_contents.append(image)
        else:
            request.raw_input_contents.append(data)
        return request

    def message(self, descriptor: Any, depth: int = 0) -> Message:
        """A message with some of its fields set to likely and unlikely values."""
        message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if self._rng.random() < 0.25 / (depth + 1):
                self._set(message, field, depth)
        return message

    def _set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        target: Any = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key = self._text()
            value_field = field.message_type.fields_by_name["value"]
            if value_field.message_type is not None:
                target[key].MergeFrom(self.message(value_field.message_type, depth))
            else:
                target[key] = self._plain(value_field)
        elif field.is_repeated:
            for _ in range(self._rng.randint(0, 3)):
                if field.message_type is not None:
                    target.add().MergeFrom(self.message(field.message_type, depth + 1))
                else:
                    target.append(self._plain(field))
        elif field.message_type is not None:
            target.MergeFrom(self.message(field.message_type, depth + 1))
        else:
            setattr(message, field.name, self._plain(field))

    def _text(self) -> str:
        return (
            self._rng.choice((*TEXTS, *DATATYPES, "timeout", "priority", "energy")).encode("utf-8", "replace").decode()
        )

    def _plain(self, field: FieldDescriptor) -> Any:
        rng, kind = self._rng, field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return self._image() if field.type == FieldDescriptor.TYPE_BYTES else self._text()
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
            return rng.choice((0.0, 0.5, -1.0, 1e308, float("nan"), float("inf"), float("-inf")))
        bits = 31 if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_ENUM) else 63
        signed = kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
        if kind == FieldDescriptor.CPPTYPE_UINT32:
            bits = 32
        elif kind == FieldDescriptor.CPPTYPE_UINT64:
            bits = 64
        return rng.choice((0, 1, 2, 28, 100, 2**bits - 1, *((-1, -(2**bits)) if signed else ())))


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"))
