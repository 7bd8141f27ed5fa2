"""Shares certificates with other machines through Redis: one at a time asks for them, and all answer its challenges.

A private key in Redis is encrypted, by a key that is made of the password of Redis; nobody who reads a copy of its data can use it.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.access.shared.client import RedisClient
from txmux.files import read_bytes
from txmux.net.redis import RedisError
from txmux.rules.model.settings import Store

_PREFIX = "txmux:acme:"
_LOCK, _CHALLENGES = f"{_PREFIX}lock", f"{_PREFIX}challenges"
_LOCKED = 300  # seconds in which a machine gets a certificate, or has ended
_CHALLENGED = 180
_NONCE = 12
_UNLOCK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"


class SharedCertificates:
    """What a machine tells others, and learns of them. While Redis cannot be reached, it is as if there were no others."""

    _log = Logger()
    spread = 2.5  # seconds until every machine answers a challenge: each looks once a second

    def __init__(self, reactor: Any, store: Store, password: Path | None) -> None:
        self._store = store
        self._password = password
        self._cipher: AESGCM | None = None
        self._machine = token_hex(8)
        self._problem = ""
        self._client = RedisClient(reactor, store, password, self._is_up, self._is_down)
        self._client.start()

    @property
    def is_up(self) -> bool:
        return self._client.redis is not None

    def stop(self) -> Deferred[Any]:
        return self._client.stop()

    def _is_up(self) -> None:
        self._problem = ""

    def _is_down(self, why: str) -> None:
        if why != self._problem:
            self._problem = why
            message = (
                "{store}: {why}; this machine asks for certificates by itself until it is back"
            )
            self._log.warn(message, store=self._store.text, why=why)

    async def lock(self) -> bool:
        """Return whether this machine may ask for a certificate; `unlock` when it has."""
        words = ("SET", _LOCK, self._machine, "EX", _LOCKED, "NX")
        return await self._ask(*words, otherwise=b"OK") is not None

    async def unlock(self) -> None:
        await self._ask("EVAL", _UNLOCK, 1, _LOCK, self._machine)

    async def show(self, challenges: Mapping[str, str]) -> None:
        """Have other machines answer these challenges, within `spread`, or no more of this machine's."""
        if challenges:
            text = json.dumps([self._machine, {**challenges}])
            await self._ask("SET", _CHALLENGES, text, "EX", _CHALLENGED)
        else:
            await self._ask("DEL", _CHALLENGES)

    async def challenges(self) -> dict[str, str]:
        """Return the challenges of another machine, by name."""
        found = await self._ask("GET", _CHALLENGES)
        with suppress(ValueError, TypeError):
            machine, challenges = json.loads(found or "")
            if machine != self._machine:
                return {str(name): bytes.fromhex(one).hex() for name, one in challenges.items()}
        return {}

    async def put(self, directory: str, name: str, pem: bytes, seconds: float) -> None:
        """Give a certificate with its key to other machines, for as long as it is valid."""
        if self.is_up:
            nonce = token_bytes(_NONCE)
            sealed = nonce + self._sealing().encrypt(nonce, pem, _of(directory, name))
            await self._ask("SET", _key(name), b64encode(sealed), "EX", int(seconds))

    async def certificate(self, directory: str, name: str) -> bytes | None:
        """Return what another machine has got for a name from an authority, or this one before."""
        found = await self._ask("GET", _key(name))
        with suppress(ValueError, TypeError, InvalidTag):
            sealed = b64decode(found or "", validate=True)
            return self._sealing().decrypt(sealed[:_NONCE], sealed[_NONCE:], _of(directory, name))
        return None

    def _sealing(self) -> AESGCM:
        if self._cipher is None:
            secret = b"" if self._password is None else read_bytes(self._password).strip()
            made = Scrypt(salt=_PREFIX.encode(), length=32, n=2**14, r=8, p=1).derive(secret)
            self._cipher = AESGCM(made)
        return self._cipher

    async def _ask(self, *words: str | float | bytes, otherwise: Any = None) -> Any:
        if self._client.redis is None:
            return otherwise
        try:
            return await self._client.redis.execute(*words)
        except RedisError as problem:
            self._is_down(str(problem))
            return otherwise


def _key(name: str) -> str:
    return f"{_PREFIX}certificate:{name}"


def _of(directory: str, name: str) -> bytes:
    return f"{directory}\n{name}".encode()
