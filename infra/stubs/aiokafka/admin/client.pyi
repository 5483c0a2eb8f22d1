from collections.abc import Sequence
from ssl import SSLContext
from typing import TypedDict

from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import (
    AlterConfigsResponse,
    CreatePartitionsResponse,
    CreateTopicsResponse,
    DeleteTopicsResponse,
    DescribeConfigsResponse,
)
from aiokafka.structs import TopicPartition

from .config_resource import ConfigResource
from .new_partitions import NewPartitions
from .new_topic import NewTopic
from .records_to_delete import RecordsToDelete

class _PartitionDescription(TypedDict):
    error_code: int
    partition: int
    leader: int
    replicas: list[int]
    isr: list[int]

class _TopicDescription(TypedDict):
    error_code: int
    topic: str
    is_internal: bool
    partitions: list[_PartitionDescription]

class _BrokerDescription(TypedDict):
    node_id: int
    host: str
    port: int
    rack: str | None

class _ClusterDescription(TypedDict):
    brokers: list[_BrokerDescription]
    cluster_id: str | None
    controller_id: int

class AIOKafkaAdminClient:
    _client: AIOKafkaClient
    def __init__(
        self,
        *,
        bootstrap_servers: str | Sequence[str] = "localhost",
        client_id: str = ...,
        request_timeout_ms: int = 40000,
        connections_max_idle_ms: int = 540000,
        retry_backoff_ms: int = 100,
        metadata_max_age_ms: int = 300000,
        security_protocol: str = "PLAINTEXT",
        ssl_context: SSLContext | None = None,
        sasl_mechanism: str = "PLAIN",
        sasl_plain_username: str | None = None,
        sasl_plain_password: str | None = None,
        sasl_oauth_token_provider: AbstractTokenProvider | None = None,
    ) -> None: ...
    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def list_topics(self) -> list[str]: ...
    async def describe_topics(self, topics: list[str] | None = None) -> list[_TopicDescription]: ...
    async def describe_cluster(self) -> _ClusterDescription: ...
    async def create_topics(
        self, new_topics: list[NewTopic], timeout_ms: int | None = None, validate_only: bool = False
    ) -> CreateTopicsResponse: ...
    async def delete_topics(self, topics: list[str], timeout_ms: int | None = None) -> DeleteTopicsResponse: ...
    async def create_partitions(
        self, topic_partitions: dict[str, NewPartitions], timeout_ms: int | None = None, validate_only: bool = False
    ) -> CreatePartitionsResponse: ...
    async def delete_records(
        self, records_to_delete: dict[TopicPartition, RecordsToDelete], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]: ...
    async def describe_configs(
        self, config_resources: list[ConfigResource], include_synonyms: bool = False
    ) -> list[DescribeConfigsResponse]: ...
    async def alter_configs(self, config_resources: list[ConfigResource]) -> list[AlterConfigsResponse]: ...
