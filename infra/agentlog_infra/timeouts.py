"""Time-outs and intervals of the infrastructure."""

# Connections to Kafka
KAFKA_REQUEST_MS = 5_000
"""One request to a broker, before the client tries again."""
KAFKA_METADATA_RETRY_MS = 20
"""A new consumer waits this long for a topic's metadata, then asks again."""
TOPIC_VISIBLE_S = 30.0
"""A topic that was created may take this long to be visible to the next request."""
TOPIC_VISIBLE_POLL_S = 0.05
KAFKA_CLOSE_S = 0.5
"""A client may take this long to close its connections; then they are broken off."""

# The producer
PRODUCER_START_S = 10.0
"""aiokafka 0.14 asks for a producer id without a limit of its own."""
PRODUCER_SEND_S = 5.0
"""Until the client has accepted a record."""
PRODUCER_SILENCE_S = 10.0
"""The longest wait for an acknowledgement. A producer that got none for this long is replaced."""
PRODUCER_OVERDUE_S = 3.0
"""A gateway whose append has waited this long for its acknowledgement is not ready."""
PRODUCER_FAILED_S = 30.0
"""A gateway whose last append failed is not ready for this long."""
PRODUCER_RETRY_MS = 50
PRODUCER_FIRST_PAUSE_S = 0.1
PRODUCER_LONGEST_PAUSE_S = 2.0

# Readers of `events` and `blobs`
READER_FETCH_WAIT_MS = 100
READER_FIRST_WAIT_MS = 500
"""After this long without a record, the reader asks whether the log ends here."""
READER_WAIT_MS = 5_000
EVENT_TAIL_FETCH_WAIT_MS = 100
EVENTS_COMMAND_POLL_MS = 1_000
EVENTS_COMMAND_VERDICT_POLL_S = 0.1

# Readers of `outputs`
OUTPUTS_FETCH_WAIT_MS = 5
"""A consumer that is assigned another partition waits first for the poll in flight, so polls are short here."""
OUTPUTS_READ_MS = 5_000
OUTPUTS_TAIL_FETCH_WAIT_MS = 1_000
OUTPUTS_TAIL_POLL_MS = 30_000
OUTPUTS_TAIL_IDLE_S = 60.0
"""A partition without readers is followed for this long, so that the next reader needs no new connection."""
OUTPUTS_TAIL_FIRST_PAUSE_S = 0.05
OUTPUTS_TAIL_LONGEST_PAUSE_S = 2.0

# Memory of checkpoints
OVERLAY_FIRST_PAUSE_S = 0.01
OVERLAY_LONGEST_PAUSE_S = 0.5
OVERLAY_PATIENCE_S = 300.0
"""A run whose checkpoints fill its memory waits this long for the rows, as reads do, before its attempt is given up."""

# Redis
REDIS_BLOCK_S = 2.0
"""The longest blocking call."""
REDIS_SOCKET_S = 5.0
"""Longer than the longest blocking call, so that a half-open connection is noticed."""
REDIS_ANSWER_S = 2.0
"""One command, with its connection and the client's retries; a blocking command gets its own wait in addition."""
REDIS_HEALTH_CHECK_S = 10
REDIS_SILENCE_S = 10.0
"""A subscription without any message or answer to a ping for this long is given up: the other end is gone."""
REDIS_PROBE_KEPT_MS = 10_000
REDIS_PROBE_BLOCK_S = 0.01
"""A blocking pop of the check; its list has an entry."""
REDIS_RECONNECT_PAUSE_S = 0.2
DEAD_WORKER_KEPT_S = 3600
WORKER_DEATHS_S = 600
"""Deaths of workers are counted for this long."""

# Verdicts
VERDICT_HINT_S = 0.25
"""A record waits this long for its hint before its verdict is queried, and this long again before the next query."""
VERDICT_POLL_S = 0.1
VERDICT_QUERY_S = 5.0
"""One query; the next one uses another connection."""

# The checkpointer
JOURNAL_LINGER_S = 0.005
"""A pipelined journal waits this long for more facts before it appends: one commit instead of one per call."""

# Embedded servers
BROKER_START_S = 300.0
"""After a crash the broker scans its log, which may be long."""
POSTGRES_START_S = 300.0
"""Crash recovery may be long, and is not a failure."""
POSTGRES_POLL_S = 0.005
POSTGRES_SHARED_MEMORY_S = 10.0
"""The children of a killed server may keep its shared memory for this long."""
POSTGRES_SHARED_MEMORY_POLL_S = 0.1
VALKEY_START_S = 60.0
"""Valkey reads its append-only file first."""
VALKEY_POLL_S = 0.005

# Child processes
CHILD_POLL_S = 0.02
JOB_S = 600.0
RESTART_WINDOW_S = 60.0
RESTART_FIRST_PAUSE_S = 0.1
RESTART_LONGEST_PAUSE_S = 5.0
SPARE_LONGEST_PAUSE_S = 0.5
"""A spare worker is restarted sooner: it exists to find the run that ends its process."""

# Roles
ROLE_START_S = 120.0
"""User code may import slowly."""
GATEWAY_STOP_S = 20.0
"""Requests in flight have 12 s of it."""
WORKER_STOP_S = 30.0
"""After the grace period a worker still gives its runs back and closes its connections."""
OLD_ROLE_STOP_S = 10.0

# Commands
DEV_SUSPECTS_AFTER_LEASES = 20
"""A development server has spare workers for suspects; other workers wait this many times the lifetime of a lease."""
DEV_GRACE_S = 5.0
"""Runs on a development server get this long to finish when it stops."""
TOLD_AFTER_S = 1.0
"""A step of the start that takes longer than this is told."""
RELOAD_POLL_S = 1.0
SIGNAL_REPEAT_S = 0.5
"""A terminal and a wrapping script may both pass on one Ctrl-C, so a second signal within this time does not count."""
DOCTOR_CHECK_S = 10.0

# projects
GIT_S = 5.0
"""Git tells which commit is checked out; longer, and the provenance of runs has no revision."""

# LangSmith
LANGSMITH_S = 15.0
"""How long LangSmith may take to give the URLs for feedback on a run; the end of the run waits for it."""
