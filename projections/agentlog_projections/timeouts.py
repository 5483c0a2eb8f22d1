"""Time-outs and intervals of the projections."""

# Projectors
PROJECTOR_LEAVE_S = 2.0
"""A projector that stops may take this long to release its partitions; then the others find its heartbeat overdue."""
PROJECTOR_FORGOTTEN_S = 3600.0
"""A projector without a heartbeat for this long loses its row."""

STOP_FIRST_PAUSE_S = 1.0
STOP_LONGEST_PAUSE_S = 10.0
"""A partition that stopped at a record that may become readable is tried again after pauses between these two."""
ISOLATED_IDLE_S = 60.0
"""A fold in isolation may leave its transaction idle for this long, while it encodes a very large record."""
STALLED_S = 10.0
"""A partition makes no progress if its next record has waited this long and no other was folded meanwhile."""
PROBE_S = 20.0
"""A projector whose fold fails again and again waits this long for another connection to write."""

# Rebuilds
REBUILD_LOCK_S = 60.0
"""A rebuild in place waits this long for another one that folds."""
REBUILD_STATEMENT_S = 3600.0
"""The longest statement of a rebuild: a digest over a table."""
REBUILD_SWITCH_LOCK_S = 2.0
"""The switch waits this long for earlier statements; meanwhile the projector waits for the switch."""
REBUILD_READERS_S = 10.0
"""Dropping a replaced table waits this long for its readers."""
