"""Shares certificates with other machines through Redis: one at a time asks for them, and all answer its challenges.

The values in Redis are encrypted and authenticated, by a key that is derived from its password: a reader of its data learns no private
key, and a writer cannot make listeners answer a challenge or show a certificate.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from secrets import token_bytes, token_hex
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.errors import MuxError
from txmux.telemetry.sources import Source
from txmux.wire.jsontext import MISSHAPEN, parse_json

_PREFIX = "txmux:acme:"
_LOCK, _CHALLENGES, _CHANGES = (f"{_PREFIX}{what}" for what in ("lock", "challenges", "changes"))
_LOCKED = 300  # seconds until the lock expires; an order takes less
_STARTED = 120.0  # seconds with the lock after which a machine starts no other order: others wait, and the lock expires
_CHALLENGED = 180  # seconds; an order takes less
_CLOCKS = 120  # seconds by which the clocks of two machines may differ
_POLLS = 10.0  # the least seconds between two checks for certificates
_NONCE = 12
_LOCKING = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
return 0
"""
_UNLOCK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"


class SharedCertificates:
    """The lock, the challenges and the certificates in Redis. While that cannot be reached, this machine is on its own.

    Args:
        store: The value of ``shared_limits``, which connects.
        now: The time, in seconds since 1970.
    """

    _log = Logger()
    spread = 2.5  # seconds until every machine answers a challenge: each polls once a second

    def __init__(self, reactor: Any, store: Any, now: Callable[[], float]) -> None:
        self._reactor = reactor
        self._now = now
        self._secret: bytes | None = None
        self._cipher: AESGCM | None = None
        self._machine = token_hex(8)
        self._holders = 0
        self._locked_at = 0.0
        self._changes: bytes | None = b"none yet"
        self._polled_at = -_POLLS
        self._apart = b""  # the last machine whose clock is too far from this one's
        effect = "this machine asks for certificates by itself until it answers"
        self.source = Source("certificates", store.text, effect, reactor.seconds)
        self._client = store.connect(reactor, self._connected, self.source.failed)

    @property
    def is_up(self) -> bool:
        return self._client.redis is not None and self._cipher is not None

    def stop(self) -> Deferred[Any]:
        stopped: Deferred[Any] = self._client.stop()
        return stopped

    def _connected(self) -> None:
        secret = self._client.secret.encode()
        if secret != self._secret:
            made = Scrypt(salt=_PREFIX.encode(), length=32, n=2**14, r=8, p=1).derive(secret)
            self._secret, self._cipher = secret, AESGCM(made)
        self.source.answered()

    async def lock(self) -> bool:
        """Return whether this machine may ask for certificates; each success needs an `unlock`."""
        if self._holders and self._reactor.seconds() - self._locked_at > _STARTED:
            return False
        if await self._ask("EVAL", _LOCKING, 1, _LOCK, self._machine, _LOCKED, otherwise=1) != 1:
            return False
        if not self._holders:
            self._locked_at = self._reactor.seconds()
        self._holders += 1
        return True

    async def unlock(self) -> None:
        self._holders -= 1
        if not self._holders:
            await self._ask("EVAL", _UNLOCK, 1, _LOCK, self._machine)

    async def show(self, challenges: Mapping[str, str]) -> None:
        """Make other machines answer these challenges of this machine, within `spread`, and no others."""
        if challenges and self.is_up:
            text = json.dumps([self._machine, self._now(), {**challenges}])
            sealed = self._seal(text.encode(), _CHALLENGES.encode())
            await self._ask("SET", _CHALLENGES, sealed, "EX", _CHALLENGED)
        else:
            await self._ask("DEL", _CHALLENGES)

    async def poll(self) -> tuple[dict[str, str], bool]:
        """Return the challenges of the machine that has the lock, by name, and whether there may be new certificates."""
        values = await self._ask("MGET", _LOCK, _CHALLENGES, _CHANGES)
        if not isinstance(values, list) or len(values) != 3:
            return {}, False
        owner, sealed, changes = values
        is_other = owner not in {None, self._machine.encode()}
        challenges = self._challenges(sealed, owner) if is_other else {}
        now = self._reactor.seconds()
        is_changed = changes != self._changes and now - self._polled_at >= _POLLS
        if is_changed:
            self._changes, self._polled_at = changes, now
        return challenges, is_changed

    def _challenges(self, sealed: bytes | None, owner: bytes) -> dict[str, str]:
        """Return the challenges that the owner of the lock shows; old ones are refused, since they may be replayed."""
        try:
            machine, when, challenges = parse_json(self._open(sealed, _CHALLENGES.encode()) or "")
            age = self._now() - when
            if machine.encode() == owner and -_CLOCKS <= age <= _CHALLENGED + _CLOCKS:
                return {
                    str(name): bytes.fromhex(digest).hex() for name, digest in challenges.items()
                }
            if machine.encode() == owner and owner != self._apart:
                self._apart = owner
                self._log.warn(
                    "{source}: a challenge of another machine is not answered, as its time is {age:.0f} s before this machine's: "
                    "set the clocks of all machines",
                    source=self.source.name,
                    age=age,
                )
        except MISSHAPEN:
            pass
        return {}

    async def put(self, directory: str, name: str, pem: bytes, seconds: float) -> None:
        """Share a certificate with its key for as long as it is valid."""
        if self.is_up:
            sealed = self._seal(pem, _of(directory, name))
            await self._ask("SET", _key(name), sealed, "EX", int(seconds))
            await self._ask("INCR", _CHANGES)

    async def certificate(self, directory: str, name: str) -> bytes | None:
        return self._open(await self._ask("GET", _key(name)), _of(directory, name))

    def _seal(self, data: bytes, purpose: bytes) -> bytes:
        assert self._cipher is not None  # noqa: S101 - it is up
        nonce = token_bytes(_NONCE)
        return b64encode(nonce + self._cipher.encrypt(nonce, data, purpose))

    def _open(self, value: Any, purpose: bytes) -> bytes | None:
        if self._cipher is None:
            return None
        try:
            sealed = b64decode(value or b"", validate=True)
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], purpose)
        except (ValueError, TypeError, InvalidTag):
            return None

    async def _ask(self, *words: str | float | bytes, otherwise: Any = None) -> Any:
        if not self.is_up or self._client.redis is None:
            return otherwise
        self.source.requested()
        try:
            reply = await self._client.redis.execute(*words)
        except MuxError as problem:
            self.source.failed(str(problem))
            return otherwise
        except BaseException:
            self.source.dropped()
            raise
        self.source.answered()
        return reply


def _key(name: str) -> str:
    return f"{_PREFIX}certificate:{name}"


def _of(directory: str, name: str) -> bytes:
    return f"{directory}\n{name}".encode()
