from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClassifyRequest(_message.Message):
    __slots__ = ("model", "version", "images", "top_k", "id", "threshold", "indices_only", "priority", "energy")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    INDICES_ONLY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ENERGY_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    images: _containers.RepeatedScalarFieldContainer[bytes]
    top_k: int
    id: str
    threshold: float
    indices_only: bool
    priority: int
    energy: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., images: _Optional[_Iterable[bytes]] = ..., top_k: _Optional[int] = ..., id: _Optional[str] = ..., threshold: _Optional[float] = ..., indices_only: bool = ..., priority: _Optional[int] = ..., energy: bool = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("id", "model", "version", "predictions", "timings_ms", "batch_size", "error", "cached", "members", "energy_mj", "energy_source", "energy_method", "arm")
    class Class(_message.Message):
        __slots__ = ("index", "label", "probability")
        INDEX_FIELD_NUMBER: _ClassVar[int]
        LABEL_FIELD_NUMBER: _ClassVar[int]
        PROBABILITY_FIELD_NUMBER: _ClassVar[int]
        index: int
        label: str
        probability: float
        def __init__(self, index: _Optional[int] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...
    class Prediction(_message.Message):
        __slots__ = ("classes",)
        CLASSES_FIELD_NUMBER: _ClassVar[int]
        classes: _containers.RepeatedCompositeFieldContainer[ClassifyResponse.Class]
        def __init__(self, classes: _Optional[_Iterable[_Union[ClassifyResponse.Class, _Mapping]]] = ...) -> None: ...
    class Timings(_message.Message):
        __slots__ = ("receive", "decode", "queue", "run", "post", "total")
        RECEIVE_FIELD_NUMBER: _ClassVar[int]
        DECODE_FIELD_NUMBER: _ClassVar[int]
        QUEUE_FIELD_NUMBER: _ClassVar[int]
        RUN_FIELD_NUMBER: _ClassVar[int]
        POST_FIELD_NUMBER: _ClassVar[int]
        TOTAL_FIELD_NUMBER: _ClassVar[int]
        receive: float
        decode: float
        queue: float
        run: float
        post: float
        total: float
        def __init__(self, receive: _Optional[float] = ..., decode: _Optional[float] = ..., queue: _Optional[float] = ..., run: _Optional[float] = ..., post: _Optional[float] = ..., total: _Optional[float] = ...) -> None: ...
    class Member(_message.Message):
        __slots__ = ("model", "version", "images", "outcome", "ms", "engine_ms", "reason")
        MODEL_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        IMAGES_FIELD_NUMBER: _ClassVar[int]
        OUTCOME_FIELD_NUMBER: _ClassVar[int]
        MS_FIELD_NUMBER: _ClassVar[int]
        ENGINE_MS_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        model: str
        version: str
        images: int
        outcome: str
        ms: float
        engine_ms: float
        reason: str
        def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., images: _Optional[int] = ..., outcome: _Optional[str] = ..., ms: _Optional[float] = ..., engine_ms: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    ENERGY_MJ_FIELD_NUMBER: _ClassVar[int]
    ENERGY_SOURCE_FIELD_NUMBER: _ClassVar[int]
    ENERGY_METHOD_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    version: str
    predictions: _containers.RepeatedCompositeFieldContainer[ClassifyResponse.Prediction]
    timings_ms: ClassifyResponse.Timings
    batch_size: int
    error: str
    cached: bool
    members: _containers.RepeatedCompositeFieldContainer[ClassifyResponse.Member]
    energy_mj: float
    energy_source: str
    energy_method: str
    arm: str
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., predictions: _Optional[_Iterable[_Union[ClassifyResponse.Prediction, _Mapping]]] = ..., timings_ms: _Optional[_Union[ClassifyResponse.Timings, _Mapping]] = ..., batch_size: _Optional[int] = ..., error: _Optional[str] = ..., cached: bool = ..., members: _Optional[_Iterable[_Union[ClassifyResponse.Member, _Mapping]]] = ..., energy_mj: _Optional[float] = ..., energy_source: _Optional[str] = ..., energy_method: _Optional[str] = ..., arm: _Optional[str] = ...) -> None: ...
