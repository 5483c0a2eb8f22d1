"""Time-outs and intervals of the processors."""

from datetime import timedelta

# Services
SERVICE_STOP = timedelta(seconds=10)
"""A service may take this long to stop; then it is cancelled."""

# Appends
VERDICT_WAIT = timedelta(seconds=30)
"""An append without a verdict is repeated after this long."""
APPEND_RETRY_S = 1.0
OUTPUT_FENCE_S = 2.0
"""A release waits this long for its fence: no run may stay lost because `outputs` is away."""
END_OFFSET_FRESH_S = 1.0
"""The end of a partition of `outputs` is remembered for this long: a reader starts at most this much too early."""

# Reads for user code
READS_PATIENCE = timedelta(minutes=5)
"""Reads are repeated for this long, so that a rebuild of the rows does not cost a run an attempt."""
READS_FIRST_PAUSE_S = 0.05
READS_LONGEST_PAUSE_S = 1.0
FINAL_STATE_WAIT = timedelta(seconds=15)
"""A graph may take this long to return a state while rows answer; then its run ends without the graph's code."""
FINAL_STATE_LEAST_WAIT_S = 0.05
"""The shortest wait between two checks of `FINAL_STATE_WAIT`."""

# Event loops of user code
LOOP_BLOCKED_S = 0.1
"""A loop without an answer for this long counts as blocked. It gets no new runs until it answers."""
LOOP_TOLERATED_S = 1.0
"""A graph that blocks its loop for this long gets a loop for each of its runs."""
LOOP_CHECK_S = 0.25

# Queue, claims and leases
QUEUE_POP = timedelta(seconds=2)
"""One blocking pop, and the interval between two queries for ready rows while Redis is away."""
SUSPECT_POP = timedelta(seconds=0.05)
"""The pop of a suspect that was seen in its queue a moment ago."""
SPARE_IDLE = timedelta(seconds=60)
"""A spare worker without a suspect for this long ends."""
POP_CANCEL_S = 1.0
"""A cancelled pop is cancelled again after this long."""
LEASELESS_S = 0.05
"""A run gets a lease after this long: the reaper does not check claims as young as this."""
CLAIM_STATUS_S = 2.0
"""After this long without an answer from the rows, claims stay valid until the next check, and leases are renewed."""
CANCEL_HINT_KEPT_S = 60.0
"""A hint about another worker's run is remembered for this long: the verdict on our claim may still be on its way."""
RUN_ALIVE_INTERVAL = timedelta(seconds=10)
"""While Redis is away, a worker appends `RunAlive` for each of its runs at this interval."""

# Draining
GIVE_BACK_S = 10.0
"""Attempts of a draining worker may take this long to stop and release their runs; then the worker releases them."""
GIVE_BACK_LEAST_S = 1.0
GIVE_BACK_PART = 0.2
"""With a short grace period they may take this part of it: user code that ignores the stop must not outlast it."""
RELEASE_S = 8.0
"""The log may take this long for these releases; then the worker ends as if it had died."""

# Frames of runs
FLUSH_S = 0.008
"""A flush takes the frames that come within this time after its first one."""
FLUSH_PATIENCE_S = 10.0
"""After an outage of `outputs` of this length, frames are dropped."""
FLUSH_RETRY_S = 0.25
FLUSH_BEFORE_RELEASE_S = 2.0
"""An attempt that is given back may take this long to flush its frames; its release must not wait longer."""

# Housekeeping
REAPER_LEAST_PAUSE_S = 0.05
"""The shortest pause between two checks of the claims, however many deadlines are near."""
DEAD_WORKER_KEPT_S = 300.0
"""The announcement of a dead worker is remembered for this long: its last claim may still be on its way to the rows."""
RECONCILER_LEAST_PAUSE_S = 0.01
REDIS_CHECK_S = 1.0
"""The interval of the check whether Redis was emptied, and the pause after rows or Redis did not answer."""
PURGE_INTERVAL = timedelta(minutes=10)
DELETION_LEFT = timedelta(minutes=1)
"""A deletion of an assistant as old as this has lost its request, which had a deadline."""
DELETIONS_INTERVAL = timedelta(seconds=15)
DELETION_WAIT = timedelta(minutes=2)
"""One pass works on a deletion for this long; the next one goes on."""

# Crons
CRON_LOOK = timedelta(seconds=1)
"""Pause between two looks for slots that are due: a run of a cron is created at most this much late."""

# Copies of threads
COPY_LOOK = timedelta(seconds=10)
"""Pause between two looks for copies that nobody drives."""
COPY_LEFT = timedelta(minutes=1)
"""A copy that is older was left by its gateway, which answers sooner."""
COPY_GIVEN_UP = timedelta(hours=1)
COPY_WAIT = timedelta(minutes=5)
"""The housekeeper drives one copy for this long; then it looks for other ones."""

# Rebuilds
REBUILD_FETCH_WAIT_MS = 50
"""A poll of the log may wait this long for records; the switch waits for a poll in progress."""
REBUILD_LOCK_S = 60.0
"""A rebuild that continues waits this long for its lock."""
REBUILD_CLEAN_LOCK_S = 30.0
"""A clean-up or cancel waits this long for the lock of rebuilds."""
PROGRESS_LINE_S = 10.0
PROGRESS_REDRAW_S = 0.2
