"""Tests of the cipher for secrets: its keys, their file, and what happens once a key is gone."""

import base64
import os
import stat
from pathlib import Path

import pytest

from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_facts.json_value import Json
from agentlog_facts.secret_values import SecretUnreadable
from agentlog_infra.aes_cipher import FILE_NAME, AesGcmCipher

KEY = "0123456789abcdef"


@pytest.mark.parametrize("key", [None, KEY, "0" * 24, "ä" * 16])
@pytest.mark.parametrize("value", ["text", 1.5, {"a": [1, None]}, "ä" * 1000])
def test_a_value_opens_as_it_was_sealed(tmp_path: Path, key: str | None, value: Json) -> None:
    sealed = AesGcmCipher(key, tmp_path).seal(value, "t1")
    assert set(sealed) == {"key_id", "nonce", "ciphertext"}
    assert AesGcmCipher(key, tmp_path).open(sealed, "t1") == value


def test_no_two_seals_are_equal(tmp_path: Path) -> None:
    cipher = AesGcmCipher(KEY, tmp_path)
    assert cipher.seal("text", "t1")["ciphertext"] != cipher.seal("text", "t1")["ciphertext"]


def test_the_key_file_is_made_when_it_is_needed_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    cipher = AesGcmCipher(None, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    cipher.seal("text", "t1")
    [file] = (tmp_path / "new").iterdir()
    assert file.name == FILE_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_in_the_settings_needs_no_file(tmp_path: Path) -> None:
    AesGcmCipher(KEY, tmp_path).seal("text", "t1")
    assert list(tmp_path.iterdir()) == []


def test_erasing_the_key_ends_its_secrets_at_once(tmp_path: Path) -> None:
    cipher = AesGcmCipher(None, tmp_path)
    sealed = cipher.seal("text", "t1")
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(SecretUnreadable, match=str(sealed["key_id"])):
        cipher.open(sealed, "t1")
    cipher.seal("text", "t1")  # with a new key
    with pytest.raises(SecretUnreadable):
        cipher.open(sealed, "t1")


def test_earlier_keys_of_the_file_still_open(tmp_path: Path) -> None:
    cipher = AesGcmCipher(None, tmp_path)
    sealed = cipher.seal("text", "t1")
    file = tmp_path / FILE_NAME
    file.write_text(base64.b64encode(os.urandom(32)).decode() + "\n" + file.read_text())
    assert cipher.open(sealed, "t1") == "text"
    assert cipher.seal("text", "t1")["key_id"] != sealed["key_id"]
    assert AesGcmCipher(KEY, tmp_path).open(sealed, "t1") == "text"


@pytest.mark.parametrize("change", [{"ciphertext": "AAAA"}, {"nonce": "AAAA"}, {"nonce": "é"}, {"ciphertext": ""}])
def test_a_changed_value_does_not_open(tmp_path: Path, change: dict[str, Json]) -> None:
    cipher = AesGcmCipher(KEY, tmp_path)
    with pytest.raises(SecretUnreadable):
        cipher.open(cipher.seal("text", "t1") | change, "t1")


def test_a_value_of_another_thread_does_not_open(tmp_path: Path) -> None:
    cipher = AesGcmCipher(KEY, tmp_path)
    with pytest.raises(SecretUnreadable):
        cipher.open(cipher.seal("text", "t1"), "t2")


@pytest.mark.parametrize("key", ["", "short", "0" * 33, "ä" * 17])
def test_a_key_of_a_wrong_length_is_refused_at_the_start(tmp_path: Path, key: str) -> None:
    with pytest.raises(Misconfigured, match="LANGGRAPH_AES_KEY: expected 16, 24 or 32 bytes, found"):
        AesGcmCipher(key, tmp_path)


NO_KEYS = [
    ("", "delete the file to get a new key"),
    ("no base64!", "cannot be read"),
    ("c2hvcnQ=\n", "key 1: expected 16, 24 or 32 bytes, found 5"),
    (f"{base64.b64encode(bytes(32)).decode()}\nc2hvcnQ=\n", "key 2: expected"),
]


@pytest.mark.parametrize(("content", "words"), NO_KEYS)
def test_a_file_without_a_key_is_named_at_the_start(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(Misconfigured, match=f"{FILE_NAME}: .*{words}"):
        AesGcmCipher(None, tmp_path)


@pytest.mark.parametrize(("content", "words"), NO_KEYS)
def test_a_file_that_loses_its_key_later_is_named_until_it_is_mended(tmp_path: Path, content: str, words: str) -> None:
    cipher = AesGcmCipher(None, tmp_path)
    cipher.seal("text", "t1")
    kept = (tmp_path / FILE_NAME).read_text()
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(Unavailable, match=f"{FILE_NAME}: .*{words}"):
        cipher.seal("text", "t1")
    (tmp_path / FILE_NAME).write_text(kept)
    cipher.seal("text", "t1")
