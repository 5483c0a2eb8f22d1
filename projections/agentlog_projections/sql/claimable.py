"""SQL conditions for the run of a thread that may be claimed, shared by pushes, the reconciler and claims.

In the queue of a thread a released run comes first, since its checkpoints are the thread's last; then the oldest run.
No run is ready while another one is claimed, or is cancelled and waits for the housekeeper to end it: that end must
be written before the next run starts on the thread's checkpoints. No run of a quarantined thread is ready: its rows
are not reliable. A run is due by the clock of PostgreSQL.
"""

from dataclasses import dataclass

from agentlog_facts.ids import RunId

WAITING = """{run}.status = 'pending' AND {run}.cancel IS NULL AND NOT {run}.deleted
   AND ({run}.due_at IS NULL OR {run}.due_at <= clock_timestamp())"""
"""Holds for a pending run that waits for nothing but its turn."""

THREAD_FREE = """NOT EXISTS (SELECT FROM read_v1.runs o
                    WHERE o.thread_id = r.thread_id AND o.status IN ('pending', 'running') AND NOT o.deleted
                      AND (o.status = 'running' OR o.cancel IS NOT NULL))"""
"""Holds where no run of the thread of `r` is claimed or waits to be ended."""

QUEUE_ORDER = "r.thread_id, r.attempt = 0, r.seq"
"""Order of the queue, thread by thread."""

NOT_QUARANTINED = "NOT EXISTS (SELECT FROM ledger.quarantine q WHERE q.key = r.thread_id)"
"""Holds where no read model has the thread of `r` in quarantine."""

READY = f"""{WAITING.format(run="r")} AND {THREAD_FREE}
   AND {NOT_QUARANTINED}"""
"""Holds for the runs of which the first in QUEUE_ORDER may be claimed."""

FIRST = f"""NOT EXISTS (SELECT FROM read_v1.runs o
                    WHERE o.thread_id = r.thread_id AND (o.attempt = 0, o.seq) < (r.attempt = 0, r.seq)
                      AND {WAITING.format(run="o")})"""
"""Holds for the run that is first in its queue."""


@dataclass(frozen=True, slots=True)
class ReadyRun:
    """A run that may be claimed now: first in the queue of its thread, due, nothing claimed on the thread.

    A `suspect` was executed when its worker died; only a worker without other runs may execute it.
    """

    run_id: RunId
    graph_id: str
    suspect: bool = False

    @property
    def queue(self) -> str:
        """Return the name of the queue in which it waits."""
        return suspects_of(self.graph_id) if self.suspect else self.graph_id


def suspects_of(graph_id: str) -> str:
    """Return the name of the queue of a graph's suspects."""
    return f"suspects:{graph_id}"


def ready_runs(where: str) -> str:
    """Return SQL for the ready runs `r` that meet a condition: (run_id, graph_id, deaths, created_at), one a thread."""
    return f"""
SELECT DISTINCT ON (r.thread_id) r.run_id, r.graph_id, r.deaths, r.created_at
  FROM read_v1.runs r
 WHERE {READY}
   AND {where}
 ORDER BY {QUEUE_ORDER}
"""
