from typing import Self

from .client import Argument, Pipeline, PubSub, Reply

class RedisCluster:
    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        protocol: int | None = None,
        socket_timeout: float | None = None,
        socket_connect_timeout: float | None = None,
        socket_keepalive: bool | None = None,
        health_check_interval: int = 0,
    ) -> RedisCluster: ...
    async def initialize(self) -> Self: ...
    async def aclose(self) -> None: ...
    async def execute_command(self, *args: Argument) -> Reply: ...
    def pipeline(self, transaction: bool = False) -> Pipeline: ...
    def pubsub(self, *, ignore_subscribe_messages: bool = False) -> PubSub: ...
