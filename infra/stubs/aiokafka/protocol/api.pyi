from typing import Generic

from typing_extensions import TypeVar

from .types import Schema

class Response:
    API_KEY: int
    API_VERSION: int
    SCHEMA: Schema

class RequestStruct:
    API_KEY: int
    API_VERSION: int
    RESPONSE_TYPE: type[Response]
    SCHEMA: Schema
    def __init__(self, *args: object) -> None: ...

T = TypeVar("T", bound=RequestStruct, default=RequestStruct)

class Request(Generic[T]):
    API_KEY: int
    def build(self, request_struct_class: type[T]) -> T: ...
