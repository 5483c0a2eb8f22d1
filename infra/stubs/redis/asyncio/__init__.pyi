from .client import Redis as Redis
