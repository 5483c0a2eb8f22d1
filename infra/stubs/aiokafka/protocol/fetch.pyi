from .api import Request, Response

class FetchRequest(Request):
    def __init__(
        self,
        max_wait_time: int,
        min_bytes: int,
        max_bytes: int,
        isolation_level: int,
        topics: list[tuple[str, list[tuple[int, int, int]]]],
        rack_id: str = "",
    ) -> None: ...

class FetchResponse_v11(Response):
    # per partition: number, error code, high watermark, ..., the record batches as they lie on the log
    topics: list[tuple[str, list[tuple[int, int, int, *tuple[object, ...], bytes]]]]
