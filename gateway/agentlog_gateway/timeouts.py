"""Time-outs and intervals of the gateway."""

# Start and end of the process
ASSISTANTS_AT_START_S = 5.0
"""How long the first response waits for the assistants of the graphs; then requests get 503 where rows are missing."""
START_COMMIT_FIRST_RETRY_S = 0.05
START_COMMIT_LONGEST_RETRY_S = 2.0
"""Pauses between the tries of what a gateway commits at its start: assistants of graphs, accepted settings of Kafka."""
DRAIN_REQUESTS_S = 12.0
"""How long requests in flight may take when the gateway stops; a verdict takes milliseconds, or as long as a projector
needs to take over."""
DRAIN_STREAMS_S = 3.0
"""How long long-running responses may still come to their end."""
DRAIN_IDLE_S = 1.0
"""How long an idle connection may still bring a request, which is answered with `Connection: close`. A client that did
not get that header may send its next request at any moment, so no connection is closed right after a response."""
DRAIN_POLL_S = 0.02
DRAIN_CANCELLED_S = 1
"""How long cancelled requests may take to end; uvicorn takes whole seconds."""

# Connections and clients
REFUSED_CONNECTION_S = 2.0
"""How long a connection stays open after a refusal: a client that still sends then sees the response."""
DESCRIPTORS_TOLD_S = 10.0
"""Interval of the log lines while file descriptors run out."""
HEARTBEAT_S = 5.0
"""Interval of the bytes that keep a long-running response alive."""
RETRY_AFTER_S = 1
STOP_MARGIN_S = 2.0
"""After the grace time of a cancelled run the housekeeper needs this long at most to end it."""
PREFLIGHT_CACHE_S = 600
LONGEST_RUN_DELAY_S = 10 * 366 * 24 * 3600
"""Upper bound of `after_seconds` of a request for a run."""

# Reads
CAUGHT_UP_CACHE_S = 0.25
"""How long a partition that has caught up counts as such without another query. A partition or a row that is missing
is looked up again, so no request is refused once all rows are there."""
TOKEN_WAIT_S = 5.0
"""How long a read waits until the projection has reached its consistency token."""
TOKEN_POLL_S = 0.5
"""How often a read that waits for a hint reads the projection's position, in case the hint is lost."""
DEPENDENCY_CHECK_S = 5.0

# Streams and waiting calls
OUTAGE_S = 60.0
"""A longer outage of the rows or of the log ends a waiting call or a stream; the client reconnects by itself."""
RUN_POLL_S = 2.0
"""How often the rows of watched runs are read, in case a hint is lost."""
END_HINT_S = 0.25
"""How long a stream that has read an end flush waits for a hint before it reads the run's row."""
END_TAIL_S = 0.1
"""How long flushes that the log already has may take to come by the tail; then they are read as a range."""
END_ANNOUNCEMENT_S = 2.0
"""How long a stream waits for the missing end flush of a failed run; then it sends the end from the run's facts."""
STREAM_RETRY_S = 0.5
ANNOUNCED_STATE_S = 5.0
"""How long the announcement of an update waits for the state, so that no factory of users holds up the others."""

# Recorded refusals
REFUSAL_WINDOW_S = 60.0
