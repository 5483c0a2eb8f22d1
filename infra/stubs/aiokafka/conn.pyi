from asyncio import Future, StreamWriter
from socket import AddressFamily
from ssl import SSLContext

from .abc import AbstractTokenProvider
from .protocol.api import Request, Response

class AIOKafkaConnection:
    def send(self, request: Request) -> Future[Response]: ...
    _writer: StreamWriter | None
    def close(self) -> Future[None] | None: ...

async def create_conn(
    host: str,
    port: int,
    *,
    client_id: str = "aiokafka",
    request_timeout_ms: int = 40000,
    ssl_context: SSLContext | None = None,
    security_protocol: str = "PLAINTEXT",
    sasl_mechanism: str | None = None,
    sasl_plain_username: str | None = None,
    sasl_plain_password: str | None = None,
    sasl_oauth_token_provider: AbstractTokenProvider | None = None,
) -> AIOKafkaConnection: ...
def collect_hosts(hosts: str | list[str], randomize: bool = True) -> list[tuple[str, int, AddressFamily]]: ...
