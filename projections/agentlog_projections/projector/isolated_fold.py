"""Fold of a failing batch: model by model, then aggregate by aggregate; failing aggregates go to quarantine."""

from collections.abc import Sequence

from agentlog_postgres.connection import Connection
from agentlog_projections.projector.quarantine import DETERMINISTIC, Quarantine, execute, is_deterministic
from agentlog_projections.sql.batch import Composer, Transaction
from agentlog_projections.sql.read_model import Commit, ReadModel, by_key


class IsolatedFold:
    """Applies read models inside the caller's transaction and quarantines only the aggregates that fail."""

    def __init__(
        self, connection: Connection, models: Sequence[ReadModel], quarantine: Quarantine, composer: Composer
    ) -> None:
        self._connection = connection
        self._models = models
        self._quarantine = quarantine
        self._composer = composer

    async def apply(self, commits: Sequence[Commit]) -> None:
        """Fold commits into every read model that can hold them. Raises: TRANSIENT."""
        for model in self._models:
            await self._apply(model, commits)

    async def _apply(self, model: ReadModel, commits: Sequence[Commit]) -> None:
        folded, waiting = self._quarantine.split(model.name, commits)
        await self._park(model, waiting)
        if await self._try(model, folded) is None:
            return
        for group in by_key(folded).values():
            error = await self._try(model, group)
            if error is not None:
                await self._park(model, group, f"{type(error).__name__}: {error}")

    async def _try(self, model: ReadModel, commits: Sequence[Commit]) -> Exception | None:
        """Apply inside a savepoint, and return the error if a second try would raise it too."""
        try:
            async with self._connection.transaction():
                tx = Transaction(self._connection)
                await model.apply(tx, commits)
                await execute(self._connection, tx, self._composer)
        except DETERMINISTIC as error:
            model.forget()
            if not is_deterministic(error):
                raise
            return error
        return None

    async def _park(self, model: ReadModel, commits: Sequence[Commit], *error: str) -> None:
        tx = Transaction(self._connection)
        self._quarantine.park(tx, model.name, commits, *error)
        await execute(self._connection, tx, self._composer)
