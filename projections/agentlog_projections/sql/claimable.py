"""Decides in SQL which run of a thread may be claimed: one rule for pushes, looks at the queue, and claims.

The line of a thread: a run that was released goes on first, since its checkpoints are the thread's last; then the
oldest. Nobody is next while one is claimed, or waits, cancelled, to be ended in its worker's place: its end is to be
written before another one starts on the thread's checkpoints. Nor on a thread in quarantine: its rows are not to be
believed. Due is judged by PostgreSQL's clock.
"""

WAITING = """{run}.status = 'pending' AND {run}.cancel IS NULL AND NOT {run}.deleted
   AND ({run}.due_at IS NULL OR {run}.due_at <= clock_timestamp())"""
"""Holds for a pending run that waits for nothing but its turn."""

THREAD_FREE = """NOT EXISTS (SELECT FROM read_v1.runs o
                    WHERE o.thread_id = r.thread_id AND o.status IN ('pending', 'running') AND NOT o.deleted
                      AND (o.status = 'running' OR o.cancel IS NOT NULL))"""
"""Holds where no run of the thread of `r` is claimed or waits to be ended."""

QUEUE_ORDER = "r.thread_id, r.attempt = 0, r.seq"
"""The order of the line, thread by thread."""

NOT_QUARANTINED = "NOT EXISTS (SELECT FROM ledger.quarantine q WHERE q.key = r.thread_id)"
"""Holds where no read model of the thread of `r` is parked."""

READY = f"""{WAITING.format(run="r")} AND {THREAD_FREE}
   AND {NOT_QUARANTINED}"""
"""Holds for the runs of which the first in QUEUE_ORDER may be claimed."""

FIRST = f"""NOT EXISTS (SELECT FROM read_v1.runs o
                    WHERE o.thread_id = r.thread_id AND (o.attempt = 0, o.seq) < (r.attempt = 0, r.seq)
                      AND {WAITING.format(run="o")})"""
"""Holds for the run that is first in its line."""
