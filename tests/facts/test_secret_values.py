"""Secrets: the keys under which they lie, sealing and opening of a run, and the mask that others see."""

import json
from dataclasses import replace

import pytest
from tests.facts.examples import EXAMPLES

from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_facts.secret_values import (
    MASK,
    SEALED,
    HiddenValues,
    SecretKeys,
    Secrets,
    SecretUnreadable,
    mask_kwargs,
)
from agentlog_facts.thread import RunCreated

SECRET = "sk-4242-never-in-clear"
KEYS = SecretKeys()


class ReversingCipher:
    """Cipher of these tests: text in reverse, for one owner."""

    def seal(self, value: Json, owner: str) -> JsonObject:
        return {"key_id": owner, "nonce": "", "ciphertext": json.dumps(value)[::-1]}

    def open(self, sealed: JsonObject, owner: str) -> Json:
        if sealed["key_id"] != owner:
            raise SecretUnreadable("another owner")
        value: Json = json.loads(str(sealed["ciphertext"])[::-1])
        return value


SECRETS = Secrets(KEYS, ReversingCipher())
KWARGS: JsonObject = {
    "input": {"api_key": "input is the user's state", SEALED: {"a": 1}},
    "config": {
        "configurable": {
            "openai_api_key": SECRET,
            "thread_id": "t",
            "model": {"apiKey": SECRET, "name": "m", "max_tokens": 100},
            "headers": [{"Authorization": f"Bearer {SECRET}"}, {"x-api-key": SECRET}],
            "password": 123456,
            "langgraph_auth_user": None,
        },
        "metadata": {"shown": 1},
        "tags": ["t"],
    },
    "context": {
        "service_token": {"id": "a-name", "value": SECRET},
        "client_secret": "",
        "secret": True,
        "user_id": "u",
    },
}


def run() -> RunCreated:
    example = next(fact for fact in EXAMPLES if isinstance(fact, RunCreated))
    assistant = example.assistant | {"config": {"configurable": {"api_key": SECRET}}, "context": {"password": SECRET}}
    config: JsonObject = {"configurable": {"api_key": SECRET}, "tags": ["t"]}
    return replace(example, assistant=assistant, kwargs=KWARGS, thread_config=config)


@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "OPENAI_API_KEY",
        "openaiApiKey",
        "x-api-key",
        "apikey",
        "API-Key",
        "api_keys",
        "token",
        "github_token",
        "accessToken",
        "ACCESS-TOKEN",
        "auth_tokens",
        "secret",
        "clientSecret",
        "aws_secret_access_key",
        "password",
        "db_password_2",
        "userPassword",
        "passphrase",
        "Authorization",
        "proxy-authorization",
        "Cookie",
        "set-cookie",
        "private_key_pem",
        "credentials",
        "jwt",
        "bearer",
        "Bearer Token",
        "connection_string",
    ],
)
def test_a_key_that_looks_like_a_secret_is_one(name: str) -> None:
    assert KEYS.matches(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens",
        "tokens",
        "model",
        "user_id",
        "thread_id",
        "langgraph_auth_user",
        "key",
        "primary_key",
        "author",
        "",
    ],
)
def test_any_other_key_is_none(name: str) -> None:
    assert not KEYS.matches(name)


def test_more_patterns_are_added_to_the_list() -> None:
    more = SecretKeys(["*_pin", "tenantCode"])
    assert more.matches("card_pin")
    assert more.matches("tenant-code")
    assert more.matches("api_key")
    assert not KEYS.matches("card_pin")


def test_a_sealed_run_shows_no_secret_and_opens_to_what_was_given() -> None:
    sealed = SECRETS.seal_run(run())
    shown = str((sealed.assistant, sealed.kwargs, sealed.thread_config))
    assert SECRET not in shown
    assert "123456" not in shown
    opened, _ = SECRETS.open_kwargs(sealed.kwargs, sealed.thread_id)
    assert opened == KWARGS
    configurable = as_object(as_object(sealed.kwargs["config"])["configurable"])
    assert (configurable["thread_id"], as_object(configurable["model"])["max_tokens"]) == ("t", 100)
    assert sealed.kwargs["input"] == KWARGS["input"]
    assert sealed.thread_config == {"configurable": {"api_key": MASK}, "tags": ["t"]}


@pytest.mark.parametrize("sealed", [False, True])
def test_a_mask_hides_secrets_whether_sealed_or_in_clear(sealed: bool) -> None:
    kwargs = SECRETS.seal_run(run()).kwargs if sealed else KWARGS
    shown = mask_kwargs(kwargs, KEYS)
    assert SECRET not in str(shown)
    config, context = as_object(shown["config"]), as_object(shown["context"])
    configurable = as_object(config["configurable"])
    assert (configurable["openai_api_key"], configurable["password"], configurable["thread_id"]) == (MASK, MASK, "t")
    assert configurable["model"] == {"apiKey": MASK, "name": "m", "max_tokens": 100}
    assert context == {"service_token": MASK, "client_secret": "", "secret": True, "user_id": "u"}
    assert config["metadata"] == {"shown": 1}


@pytest.mark.parametrize("sealed", [False, True])
def test_what_a_run_says_of_its_secrets_is_masked(sealed: bool) -> None:
    kwargs = SECRETS.seal_run(run()).kwargs if sealed else KWARGS
    _, hidden = SECRETS.open_kwargs(kwargs, run().thread_id)
    assert hidden.text(f"key {SECRET} refused for 123456") == f"key {MASK} refused for {MASK}"
    metadata: JsonObject = {"api_key": "other", "header": [f"Bearer {SECRET}"], "step": 1}
    assert hidden.metadata(metadata) == {"header": [MASK], "step": 1}
    assert hidden.fields({"error": "ValueError", "message": SECRET}) == {"error": "ValueError", "message": MASK}


@pytest.mark.parametrize("sealed", [False, True])
def test_only_the_metadata_of_config_itself_is_no_place_of_secrets(sealed: bool) -> None:
    kwargs: JsonObject = {
        "config": {
            "metadata": {"token": "searched-4242", "metadata": {"token": "searched-4243"}},
            "configurable": {"metadata": {"token": "of-configurable"}, "list": [{"metadata": {"pwd": "of-a-list"}}]},
        },
        "context": {"metadata": {"api_key": "of-context", "metadata": {"api_key": "of-inner-context"}}},
    }
    places = ("of-configurable", "of-a-list", "of-context", "of-inner-context")
    sealed_run = SECRETS.seal_run(replace(run(), kwargs=kwargs))
    opened, hidden = SECRETS.open_kwargs(sealed_run.kwargs if sealed else kwargs, run().thread_id)
    assert opened == kwargs
    text = " ".join(places)
    assert hidden.text(text) == " ".join([MASK] * len(places))
    for shown in (json.dumps(sealed_run.kwargs), json.dumps(mask_kwargs(kwargs, KEYS))):
        assert not [place for place in places if place in shown]
        assert "searched-4242" in shown
        assert "searched-4243" in shown
    assert hidden.text("searched-4242 searched-4243") == "searched-4242 searched-4243"


@pytest.mark.parametrize("secret", ["-----BEGIN\nMIIE\n", 'it\'s "quoted"', "back\\slash", "Schlüssel\x00"])
def test_a_secret_is_hidden_also_in_its_escaped_forms(secret: str) -> None:
    """A key of several lines was shown by the repr of an error, with its line ends escaped."""
    hidden = HiddenValues(KEYS, [secret])
    for text in (secret, repr(ValueError(secret)), repr([f"'{secret}\""]), json.dumps([secret]), json.dumps(secret)):
        assert MASK in hidden.text(text), text


def test_a_description_is_masked_by_keys_and_texts() -> None:
    hidden = HiddenValues(KEYS, [SECRET])
    shown = hidden.masked({"config": {"configurable": {"pwd": "abc", "own": [SECRET]}}})
    assert shown == {"config": {"configurable": {"pwd": MASK, "own": [MASK]}}}


def test_short_secrets_are_not_looked_for_in_texts() -> None:
    assert HiddenValues(KEYS, ["a", "abc"]).text("a word of abc") == "a word of abc"


def test_a_clients_own_sealed_form_comes_back_as_it_was_and_opens_nothing() -> None:
    stolen = as_object(SECRETS.seal_run(run()).kwargs["context"])["service_token"]
    forged: JsonObject = {"config": {"configurable": {"stolen": stolen}}, "context": {SEALED: {"key_id": "x"}}}
    sealed = SECRETS.seal_run(replace(run(), kwargs=forged))
    opened, _ = SECRETS.open_kwargs(sealed.kwargs, sealed.thread_id)
    assert opened == forged


def test_a_secret_of_another_thread_does_not_open() -> None:
    sealed = SECRETS.seal_run(run())
    with pytest.raises(SecretUnreadable):
        SECRETS.open_kwargs(sealed.kwargs, "another thread")


def test_a_mask_that_comes_back_in_a_list_stands_for_the_secret_at_its_place() -> None:
    known: JsonObject = {"servers": [{"api_key": "one", "url": "a"}, {"api_key": "two"}], "password": "three"}
    shown = KEYS.masked_object(known)
    assert KEYS.has_mask(shown)
    assert KEYS.restored_object(shown, known) == known
    assert not KEYS.has_mask(known)
    shorter: JsonObject = {"servers": [{"api_key": MASK}]}
    assert KEYS.has_mask(KEYS.restored_object(shorter, known))
