"""Which read models there are: the list that migrations, projector and rebuild share."""

from collections.abc import Sequence

from agentlog_projections.assistants import AssistantsModel
from agentlog_projections.checkpoints import CheckpointsModel
from agentlog_projections.commits import ReadModel
from agentlog_projections.runs import RunsModel
from agentlog_projections.store_items import StoreItemsModel
from agentlog_projections.threads import ThreadsModel

TYPES: tuple[type[ReadModel], ...] = (ThreadsModel, RunsModel, CheckpointsModel, AssistantsModel, StoreItemsModel)


def read_models() -> tuple[Sequence[ReadModel], RunsModel]:
    """Return one of each, and the one of the runs, which also says what is ready."""
    runs = RunsModel()
    return (ThreadsModel(), runs, CheckpointsModel(), AssistantsModel(), StoreItemsModel()), runs
