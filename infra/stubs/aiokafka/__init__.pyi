"""What agentlog uses of aiokafka 0.14, which has no complete types of its own: bytes in, bytes out, no serializers."""

from .abc import AbstractTokenProvider as AbstractTokenProvider, ConsumerRebalanceListener as ConsumerRebalanceListener
from .client import AIOKafkaClient as AIOKafkaClient
from .consumer import AIOKafkaConsumer as AIOKafkaConsumer
from .errors import ConsumerStoppedError as ConsumerStoppedError, IllegalOperation as IllegalOperation
from .producer import AIOKafkaProducer as AIOKafkaProducer
from .structs import (
    ConsumerRecord as ConsumerRecord,
    OffsetAndMetadata as OffsetAndMetadata,
    OffsetAndTimestamp as OffsetAndTimestamp,
    TopicPartition as TopicPartition,
)

__version__: str
