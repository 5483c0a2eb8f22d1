"""Secrets in configurable and context of runs and assistants: their keys, their sealed form, and their mask.

A secret is sealed in the fact that carries it, so that rows have no other form of it. It is opened by the worker of its
run, and by a gateway that takes it over from an assistant into a run. Everybody else sees MASK.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from typing import ClassVar, Protocol

from agentlog_facts.assistant import AssistantVersion
from agentlog_facts.errors import AgentlogError
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_facts.thread import RunCreated

SECRET_KEYS = (
    "api_key",
    "*_api_key",
    "*api_keys",
    "*apikey",
    "*access_key*",
    "*secret*",
    "*private_key*",
    "*signing_key*",
    "*encryption_key*",
    "*credential*",
    "*password*",
    "*passwd*",
    "*passphrase*",
    "pwd",
    "*_pwd",
    "token",
    "*_token",
    "*access_tokens",
    "*auth_tokens",
    "*authtoken",
    "*accesstoken",
    "*refreshtoken",
    "bearer*",
    "jwt",
    "*_jwt",
    "authorization",
    "*_authorization",
    "cookie",
    "*_cookie",
    "connection_string",
    "*_connection_string",
)
"""Patterns of keys whose values are secret; `*` stands for any text. AGENTLOG_SECRET_KEYS adds more.

Case does not matter. Words may be separated by any sign, or by capitals as in `apiKey`.
"""
MASK = "***"
"""The text that clients see in place of a secret."""
SEALED = "$sealed"
"""The only key of a sealed value: {"$sealed": {key_id, nonce, ciphertext}}."""
LEAST_LENGTH = 4
"""Shorter secrets are not looked for in texts: they would match by chance."""

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NO_NAME, _NO_PATTERN = re.compile(r"[^a-z0-9]+"), re.compile(r"[^a-z0-9*]+")


class SecretUnreadable(AgentlogError):
    """A secret cannot be opened: its key is not known here (any more), or its bytes were changed."""

    code: ClassVar[str] = "secret_unreadable"


class SecretCipher(Protocol):
    """Authenticated encryption of secrets. `owner` is the id of a thread or an assistant; only it opens its values."""

    def seal(self, value: Json, owner: str) -> JsonObject:
        """Return {key_id, nonce, ciphertext}. Raises: Unavailable when there is no key and none can be made."""
        ...

    def open(self, sealed: JsonObject, owner: str) -> Json:
        """Return the value. Raises: SecretUnreadable."""
        ...


class SecretKeys:
    """The patterns of keys whose values are secret: SECRET_KEYS and more."""

    def __init__(self, more: Sequence[str] = ()) -> None:
        patterns = [translate(_normal(pattern, _NO_PATTERN)) for pattern in (*SECRET_KEYS, *more)]
        self._pattern = re.compile("|".join(patterns))
        self._known: dict[str, bool] = {}

    def matches(self, name: str) -> bool:
        """Return whether values under this key are secret."""
        found = self._known.get(name)
        if found is None:
            found = self._pattern.match(_normal(name)) is not None
            if len(self._known) < 1024:  # names come from clients
                self._known[name] = found
        return found

    def hides(self, name: str, value: Json) -> bool:
        """Return whether a value under this key is secret; nothing, a truth value and an empty value never are."""
        return self.matches(name) and value not in (None, "", [], {}) and not isinstance(value, bool)

    def masked(self, value: Json) -> Json:
        """Return the value with MASK in place of every secret, sealed or not."""
        if isinstance(value, list):
            return [self.masked(item) for item in value]
        if not isinstance(value, dict):
            return value
        if sealed_part(value) is not None:
            return MASK
        return {
            name: MASK if self.hides(name, item) else (self.masked(item) if isinstance(item, dict | list) else item)
            for name, item in value.items()
        }

    def masked_object(self, value: JsonObject) -> JsonObject:
        """Return the object with MASK in place of every secret in it."""
        found = self.masked(value)
        return found if isinstance(found, dict) else {}

    def restored(self, given: Json, known: Json) -> Json:
        """Return a value with the secret of `known` in each place where the client sent its MASK back.

        Items of lists are found by their place, so a client that sends masks back must keep the length of the list.
        """
        if isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
            return [self.restored(item, kept) for item, kept in zip(given, known, strict=True)]
        if not isinstance(given, dict) or not isinstance(known, dict):
            return given
        return {
            name: known[name]
            if item == MASK and self.matches(name) and name in known
            else self.restored(item, known.get(name))
            for name, item in given.items()
        }

    def restored_object(self, given: JsonObject, known: JsonObject) -> JsonObject:
        """Return an object as `restored` does."""
        found = self.restored(given, known)
        return found if isinstance(found, dict) else {}

    def has_mask(self, value: Json) -> bool:
        """Return whether MASK stands in place of a secret somewhere in a value."""
        if isinstance(value, list):
            return any(self.has_mask(item) for item in value)
        if not isinstance(value, dict):
            return False
        return any((item == MASK and self.matches(name)) or self.has_mask(item) for name, item in value.items())

    def without(self, metadata: JsonObject) -> JsonObject:
        """Return the entries of a flat object whose keys are not secret."""
        return {name: item for name, item in metadata.items() if not self.matches(name)}


class HiddenValues:
    """The secrets of one attempt of a run, for leaving them out of what it writes."""

    def __init__(self, keys: SecretKeys, texts: Collection[str] = ()) -> None:
        self._keys = keys
        found = {form for text in texts if len(text) >= LEAST_LENGTH for form in _written_forms(text)}
        self._texts = sorted(found, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return the text with MASK in place of the secrets in it."""
        for secret in self._texts:
            text = text.replace(secret, MASK)
        return text

    def metadata(self, metadata: JsonObject) -> JsonObject:
        """Return metadata without the entries of secret keys and with MASK in place of secrets in texts."""
        kept = self._keys.without(metadata)
        return self.fields(kept) if self._texts else kept

    def masked(self, value: JsonObject) -> JsonObject:
        """Return an object with MASK in place of the values of secret keys and of secrets in texts."""
        return self.fields(self._keys.masked_object(value))

    def fields(self, value: JsonObject) -> JsonObject:
        """Return an object with MASK in place of the secrets in its texts."""
        return {name: self._value(item) for name, item in value.items()} if self._texts else value

    def _value(self, value: Json) -> Json:
        match value:
            case str():
                return self.text(value)
            case dict():
                return self.fields(value)
            case list():
                return [self._value(item) for item in value]
            case _:
                return value


@dataclass(frozen=True, slots=True)
class Secrets:
    """The keys of secrets and the cipher that seals them."""

    keys: SecretKeys
    cipher: SecretCipher

    def seal_run(self, run: RunCreated) -> RunCreated:
        """Return the fact with each secret of its config and context sealed for the thread. Raises: Unavailable."""
        shown = run.thread_config
        return replace(
            run,
            assistant=self._of_run(run.assistant, self._sealed, run.thread_id),
            kwargs=self._of_run(run.kwargs, self._sealed, run.thread_id),
            thread_config=None if shown is None else mask_config(shown, self.keys),
        )

    def seal_assistant(self, stated: AssistantVersion) -> AssistantVersion:
        """Return the fact with each secret of its config and context sealed for the assistant. Raises: Unavailable."""
        config, context = self._settings(stated.config, stated.context, self._sealed, stated.assistant_id)
        return replace(stated, config=config, context=context)

    def seal_payload(self, payload: JsonObject, owner: str) -> JsonObject:
        """Return the payload of a cron with each secret of its config and context sealed. Raises: Unavailable."""
        return self._of_run(payload, self._sealed, owner)

    def open_settings(self, config: JsonObject, context: JsonObject, owner: str) -> tuple[JsonObject, JsonObject]:
        """Return config and context of an assistant as the client gave them. Raises: SecretUnreadable."""
        return self._settings(config, context, self._opened, owner)

    def _settings(
        self, config: JsonObject, context: JsonObject, change: Callable[[Json, str], Json], owner: str
    ) -> tuple[JsonObject, JsonObject]:
        changed = self._of_run({"config": config, "context": context}, change, owner)
        return as_object(changed["config"]), as_object(changed["context"])

    def open_kwargs(self, kwargs: JsonObject, owner: str) -> tuple[JsonObject, HiddenValues]:
        """Return the arguments of a run as the client gave them, and the secrets in them. Raises: SecretUnreadable.

        Secrets that an earlier release stored in clear are secrets too.
        """
        opened = self._of_run(kwargs, self._opened, owner)
        secrets = [*self._texts(_without_metadata(kwargs.get("config")), opened.get("config"))]
        secrets += self._texts(kwargs.get("context"), opened.get("context"))
        return opened, HiddenValues(self.keys, secrets)

    def _of_run(self, holder: JsonObject, change: Callable[[Json, str], Json], owner: str) -> JsonObject:
        """Change `config`, except its metadata, and `context` of an object."""
        changed: JsonObject = {}
        for name in ("config", "context"):
            value = holder.get(name)
            if name == "config" and isinstance(value, dict):
                items = _without_metadata(value).items()
                changed[name] = value | {key: change(item, owner) for key, item in items}
            elif name in holder:
                changed[name] = change(value, owner)
        return holder | changed

    def _sealed(self, value: Json, owner: str) -> Json:
        if isinstance(value, list):
            return [self._sealed(item, owner) for item in value]
        if not isinstance(value, dict):
            return value
        if SEALED in value:  # a client's own, or a copy of another thread's: it must come back as it is
            return {SEALED: self.cipher.seal(value, owner)}
        return {
            name: {SEALED: self.cipher.seal(item, owner)} if self.keys.hides(name, item) else self._sealed(item, owner)
            for name, item in value.items()
        }

    def _opened(self, value: Json, owner: str) -> Json:
        if isinstance(value, list):
            return [self._opened(item, owner) for item in value]
        if not isinstance(value, dict):
            return value
        sealed = sealed_part(value)
        if sealed is not None:
            return self.cipher.open(sealed, owner)
        return {name: self._opened(item, owner) for name, item in value.items()}

    def _texts(self, stored: Json, opened: Json) -> Iterator[str]:
        """Yield the texts of all secrets in a stored value, from its opened form."""
        if isinstance(stored, list) and isinstance(opened, list):
            for one, other in zip(stored, opened, strict=True):
                yield from self._texts(one, other)
        elif isinstance(stored, dict) and sealed_part(stored) is not None:
            yield from _texts_in(opened)
        elif isinstance(stored, dict) and isinstance(opened, dict):
            for name, item in stored.items():
                hides = self.keys.hides(name, item)
                yield from _texts_in(opened[name]) if hides else self._texts(item, opened[name])


def sealed_part(value: JsonObject) -> JsonObject | None:
    """Return {key_id, nonce, ciphertext} of a sealed value, None for any other object."""
    part = value.get(SEALED) if len(value) == 1 else None
    return part if isinstance(part, dict) else None


def mask_config(config: JsonObject, keys: SecretKeys) -> JsonObject:
    """Return a config with MASK in place of secrets; its metadata stays as it is."""
    return config | {name: keys.masked(item) for name, item in _without_metadata(config).items()}


def mask_kwargs(kwargs: JsonObject, keys: SecretKeys) -> JsonObject:
    """Return the arguments of a run, or an assistant, with MASK in place of the secrets of config and context."""
    shown: JsonObject = {}
    config = kwargs.get("config")
    if isinstance(config, dict):
        shown["config"] = mask_config(config, keys)
    if "context" in kwargs:
        shown["context"] = keys.masked(kwargs["context"])
    return kwargs | shown


def opening_of(kwargs: JsonObject, keys: SecretKeys) -> JsonObject:
    """Return the config of a run with its `context`, as a factory gets them without the run, with MASK for secrets."""
    shown = mask_kwargs({name: kwargs.get(name) for name in ("config", "context")}, keys)
    return {**as_object(shown["config"] or {}, "config"), "context": shown["context"]}


def _without_metadata(config: Json) -> JsonObject:
    """Return the entries of a config in which secrets are looked for; none if it is no object.

    Clients search `config.metadata`, so it stays in clear. `metadata` at any other place is like any other key.
    """
    return {name: item for name, item in config.items() if name != "metadata"} if isinstance(config, dict) else {}


def _texts_in(value: Json) -> Iterator[str]:
    match value:
        case str():
            yield value
        case int() | float() if not isinstance(value, bool):
            yield str(value)
        case dict():
            for item in value.values():
                yield from _texts_in(item)
        case list():
            for item in value:
                yield from _texts_in(item)
        case _:
            return


def _written_forms(text: str) -> set[str]:
    """Return a text as it is, and as Python's `repr` and JSON write it: with its line ends and quotes escaped."""
    beside_quotes = repr("'\"" + text)[4:-1]  # `repr` escapes single quotes only in a text that has both kinds
    return {text, repr(text)[1:-1], beside_quotes, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}


def _normal(name: str, signs: re.Pattern[str] = _NO_NAME) -> str:
    """Return a key in lower case with `_` between its words."""
    return signs.sub("_", _WORDS.sub("_", name).casefold())
