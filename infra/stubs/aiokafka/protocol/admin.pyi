from typing import TypeAlias

from .api import Response

# name, value, read only, default or source, sensitive; with synonyms from version 1 on
_Config: TypeAlias = tuple[str, str | None, bool, bool | int, bool] | tuple[str, str | None, bool, int, bool, object]

class CreateTopicsResponse(Response):
    topic_errors: list[tuple[str, int, str | None]]

class CreatePartitionsResponse(Response):
    topic_errors: list[tuple[str, int, str | None]]

class DeleteTopicsResponse(Response):
    topic_error_codes: list[tuple[str, int]]

class DescribeConfigsResponse(Response):
    resources: list[tuple[int, str | None, int, str, list[_Config]]]

class AlterConfigsResponse(Response):
    resources: list[tuple[int, str | None, int, str]]
