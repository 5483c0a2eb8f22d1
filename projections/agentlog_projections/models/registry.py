"""Registry of read models: the list that migrations, projector and rebuild share."""

from collections.abc import Sequence

from agentlog_projections.models.assistants import AssistantsModel
from agentlog_projections.models.checkpoints import CheckpointsModel
from agentlog_projections.models.crons.model import CronsModel
from agentlog_projections.models.runs import RunsModel
from agentlog_projections.models.store import StoreItemsModel
from agentlog_projections.models.thread_copies import ThreadCopiesModel
from agentlog_projections.models.threads import ThreadsModel
from agentlog_projections.sql.cache_shares import CACHE_BYTES, cache_shares
from agentlog_projections.sql.read_model import ReadModel

TYPES: tuple[type[ReadModel], ...] = (
    ThreadsModel,
    RunsModel,
    CheckpointsModel,
    AssistantsModel,
    StoreItemsModel,
    ThreadCopiesModel,
    CronsModel,
)


def read_models(cache_bytes: int = CACHE_BYTES) -> tuple[Sequence[ReadModel], RunsModel]:
    """Return one read model of each type, and the one of runs, which also finds ready runs.

    `cache_bytes` is the budget of all caches of a projector.
    """
    shares = cache_shares(cache_bytes)
    runs = RunsModel(shares.runs)
    return (
        ThreadsModel(shares.threads),
        runs,
        CheckpointsModel(),
        AssistantsModel(),
        StoreItemsModel(),
        ThreadCopiesModel(),
        CronsModel(),
    ), runs
