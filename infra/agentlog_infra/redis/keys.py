"""Names of keys and channels in Redis, all under one prefix."""

import re


class RedisKeys:
    """Builds names of keys and channels.

    `hints` (channel), `queue:<name>` (list of run ids), `lease:<run>:<epoch>` (worker, with expiry), `instance`
    (random, so that an emptied or restarted server is noticed), `dead_workers` (set and channel), `worker_deaths`
    (sorted set: worker by the time of its death), `jobs` (sorted set: one member for each job that a worker may execute
    at once, by the time until which it counts), `probe` (for checks, with expiry). `has_hash_tag`: a cluster keeps
    all of them in one slot.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip(":")
        self.hints = self._name("hints")
        self.dead_workers = self._name("dead_workers")
        self.worker_deaths = self._name("worker_deaths")
        self.jobs = self._name("jobs")
        self.instance = self._name("instance")
        self.probe = self._name("probe")
        self.has_hash_tag = re.search(r"\{[^}]+\}", self._prefix) is not None

    def queue(self, name: str) -> str:
        """Return the name of the list of ready runs behind a queue's name."""
        return self._name("queue", name)

    def lease(self, run_id: str, epoch: int) -> str:
        """Return the name of the lease of a claim."""
        return self._name("lease", run_id, str(epoch))

    def _name(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))
