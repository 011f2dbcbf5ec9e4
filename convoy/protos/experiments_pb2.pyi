from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FeedbackRequest(_message.Message):
    __slots__ = ("feedback",)
    class Item(_message.Message):
        __slots__ = ("id", "position", "label", "class_index", "reward", "experiment")
        ID_FIELD_NUMBER: _ClassVar[int]
        POSITION_FIELD_NUMBER: _ClassVar[int]
        LABEL_FIELD_NUMBER: _ClassVar[int]
        CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
        REWARD_FIELD_NUMBER: _ClassVar[int]
        EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
        id: str
        position: int
        label: str
        class_index: int
        reward: float
        experiment: str
        def __init__(self, id: _Optional[str] = ..., position: _Optional[int] = ..., label: _Optional[str] = ..., class_index: _Optional[int] = ..., reward: _Optional[float] = ..., experiment: _Optional[str] = ...) -> None: ...
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    feedback: _containers.RepeatedCompositeFieldContainer[FeedbackRequest.Item]
    def __init__(self, feedback: _Optional[_Iterable[_Union[FeedbackRequest.Item, _Mapping]]] = ...) -> None: ...

class FeedbackResponse(_message.Message):
    __slots__ = ("accepted",)
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    def __init__(self, accepted: _Optional[int] = ...) -> None: ...
