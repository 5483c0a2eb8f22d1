"""Tests of the salts of subjects: digests under one key, apart by subject, and gone with the key."""

import hmac
from pathlib import Path

import pytest

from agentlog_facts.errors import Unavailable
from agentlog_facts.keyed_digest import subject_of
from agentlog_infra.aes_cipher import FILE_NAME, AesGcmCipher
from agentlog_infra.subject_salts import ADDRESSES, SubjectSalts

KEY = b"0123456789abcdef"
ANA, EVA = subject_of("https://login.example", "ana"), subject_of("https://login.example", "eva")


def test_a_digest_is_the_same_on_every_gateway_with_the_key() -> None:
    assert SubjectSalts(lambda: KEY).digest(b"body", ANA) == SubjectSalts(lambda: KEY).digest(b"body", ANA)


def test_equal_values_of_two_subjects_have_different_digests_and_salts() -> None:
    salts = SubjectSalts(lambda: KEY)
    one, other = salts.digest(b"body", ANA), salts.digest(b"body", EVA)
    assert one.digest != other.digest
    assert one.salt_id != other.salt_id
    assert salts.digest(b"another body", ANA).salt_id == one.salt_id


def test_the_issuer_and_the_sub_of_a_subject_cannot_be_moved_into_each_other() -> None:
    assert len({subject_of("a", "bc"), subject_of("ab", "c"), subject_of(None, "abc"), subject_of("1:a", "c")}) == 4


def test_with_another_key_nothing_is_equal() -> None:
    one, other = SubjectSalts(lambda: KEY), SubjectSalts(lambda: b"another key here")
    assert one.digest(b"body", ANA).digest != other.digest(b"body", ANA).digest
    assert one.ip_hash("10.0.0.1") != other.ip_hash("10.0.0.1")


def test_the_key_is_that_of_the_secrets_and_the_digest_names_it(tmp_path: Path) -> None:
    cipher = AesGcmCipher(None, tmp_path)
    found = SubjectSalts(cipher.sealing_key).digest(b"body", ANA)
    assert str(found.salt_id).startswith(f"{cipher.seal('text', 't1')['key_id']}.")
    (tmp_path / FILE_NAME).unlink()
    assert SubjectSalts(cipher.sealing_key).digest(b"body", ANA) != found


def test_a_digest_is_made_as_decision_0054_says() -> None:
    salt = hmac.digest(KEY, b"agentlog salt:21:https://login.exampleana", "sha256")
    found = SubjectSalts(lambda: KEY).digest(b"body", ANA)
    assert found.digest == hmac.digest(salt, b"body", "sha256").hex()


def test_addresses_are_remembered_and_not_without_a_bound() -> None:
    asked: list[int] = []

    def key() -> bytes:
        asked.append(1)
        return KEY

    salts = SubjectSalts(key)
    first = salts.ip_hash("10.0.0.1")
    assert salts.ip_hash("10.0.0.1") == first
    assert len(asked) == 1
    for number in range(ADDRESSES):
        salts.ip_hash(str(number))
    assert salts.ip_hash("10.0.0.1") == first
    assert len(asked) == ADDRESSES + 2


def test_without_a_key_there_is_no_hash_and_the_next_address_asks_again() -> None:
    keys = iter([None, KEY])

    def key() -> bytes:
        found = next(keys)
        if found is None:
            raise Unavailable("no key")
        return found

    salts = SubjectSalts(key)
    with pytest.raises(Unavailable):
        salts.ip_hash("10.0.0.1")
    assert salts.ip_hash("10.0.0.1")
