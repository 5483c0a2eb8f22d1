"""Fold of commits into every read model, twice, without a projector."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.projections.projector_env import START, ProjectorEnv

from agentlog_facts.envelope import Draft, LogPosition
from agentlog_facts.ids import Key
from agentlog_facts.ports import RawRecord
from agentlog_projections.models.registry import TYPES
from agentlog_projections.projector.quarantine import execute
from agentlog_projections.projector.verdicts import Known, Read, judge
from agentlog_projections.sql.batch import Composer, Transaction
from agentlog_projections.sql.read_model import Commit


@dataclass
class Applying:
    """`await given(...)` folds accepted commits; each model drops its cache between the two times."""

    env: ProjectorEnv
    at_once: bool
    known: dict[Key, Known] = field(default_factory=dict[Key, Known])
    offset: int = 0

    async def __call__(self, *drafts: Draft) -> None:
        commits = [self.judged(one) for one in drafts]
        for batch in [commits] if self.at_once else [[commit] for commit in commits]:
            await self._apply_twice(batch)

    def judged(self, draft: Draft) -> Commit:
        """Return a commit as the projector hands it to the models."""
        raw = RawRecord(LogPosition(0, self.offset), draft.key.encode(), b"", START)
        self.offset += 1
        self.known.setdefault(draft.key, Known(priors={}))
        commit = judge([Read(raw, draft)], self.known)[0].commit
        assert commit is not None, f"not accepted: {draft.facts}"
        return commit

    async def _apply_twice(self, batch: Sequence[Commit]) -> None:
        async with self.env.pool.acquire() as connection:
            for model in [cls() for cls in TYPES]:
                for _ in range(2):
                    tx = Transaction(connection)
                    await model.apply(tx, batch)
                    async with connection.transaction():
                        await execute(connection, tx, Composer())
                    model.forget()
