"""Commands of the log itself, one sentence each."""

from agentlog_commands.command import Accepted, Refused
from agentlog_commands.system import KAFKA, AcceptKafkaSettings, acceptance_id
from agentlog_facts.system import KafkaSettingsAccepted

HIDDEN = ("agentlog.blobs retention.bytes=-1", "agentlog.events retention.bytes=-1")


def test_a_first_acceptance_is_recorded() -> None:
    decision = AcceptKafkaSettings(HIDDEN, "b").decide(None)
    assert decision == Accepted(KAFKA, (KafkaSettingsAccepted(HIDDEN, "b"),))


def test_the_same_acceptance_is_recorded_once_whatever_the_machine() -> None:
    assert AcceptKafkaSettings(HIDDEN, "b").decide(KafkaSettingsAccepted(HIDDEN, "a")) == Refused("nothing_to_do")
    assert AcceptKafkaSettings((), "b").decide(None) == Refused("nothing_to_do")
    assert AcceptKafkaSettings((), "b").decide(KafkaSettingsAccepted((), "a")) == Refused("nothing_to_do")


def test_a_changed_acceptance_and_its_end_are_recorded() -> None:
    newest = KafkaSettingsAccepted(HIDDEN, "a")
    for settings in (HIDDEN[:1], ()):
        decision = AcceptKafkaSettings(settings, "b").decide(newest)
        assert decision == Accepted(KAFKA, (KafkaSettingsAccepted(settings, "b"),))


def test_each_acceptance_has_an_event_id_of_its_own_which_logs_hold_for_ever() -> None:
    assert len({acceptance_id(version) for version in range(100)}) == 100
    assert acceptance_id(0) == "f42b3717-0848-59c2-b472-590e4c83c63f"
