"""A demo backend that is Redis enough for ``redis-cli`` and ``redis-benchmark -t ping,set,get``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
from twisted.internet.protocol import ServerFactory

from txmux.demo.protocol import DemoProtocol
from txmux.demo.resp import RespError, array, bulk, error, integer, parse_command, simple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RedisFactory", "Store"]

_INFO = b"# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nserver_name:txmux demo\r\n"
_ENTRY_OVERHEAD = 128
"""About what an entry of a dict of bytes takes beside its bytes."""


class Store:
    """Keys and their values, in memory, up to a size.

    Args:
        limit: Most bytes of all keys and values together, each entry's own overhead included.
    """

    def __init__(self, limit: int = 16 * 1024 * 1024) -> None:
        self._limit = limit
        self._size = 0
        self._values: dict[bytes, bytes] = {}

    def set(self, key: bytes, value: bytes) -> bool:
        """Keep a value; tell whether there was room for it."""
        old = self._values.get(key)
        growth = _cost(key, value) - (0 if old is None else _cost(key, old))
        if self._size + growth > self._limit:
            return False
        self._size += growth
        self._values[key] = value
        return True

    def get(self, key: bytes) -> bytes | None:
        """Give a value, or ``None`` where there is none."""
        return self._values.get(key)

    def delete(self, key: bytes) -> bool:
        """Forget a value; tell whether there was one."""
        value = self._values.pop(key, None)
        if value is None:
            return False
        self._size -= _cost(key, value)
        return True


def _cost(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + _ENTRY_OVERHEAD


def _ping(_store: Store, *words: bytes) -> bytes:
    return bulk(words[0]) if words else simple("PONG")


def _set(store: Store, key: bytes, value: bytes) -> bytes:
    if store.set(key, value):
        return simple("OK")
    return error("OOM command not allowed: the demo's memory is full, DEL some keys")


def _delete(store: Store, *keys: bytes) -> bytes:
    return integer(sum(store.delete(key) for key in keys))


def _hello(_store: Store, version: bytes = b"2", *_words: bytes) -> bytes:
    if version != b"2":
        return error("NOPROTO unsupported protocol version: the demo speaks RESP2 only")
    return array(
        bulk(b"server"),
        bulk(b"redis"),
        bulk(b"version"),
        bulk(b"7.0.0"),
        bulk(b"proto"),
        integer(2),
    )


def _config(_store: Store, action: bytes, *names: bytes) -> bytes:
    if action.upper() != b"GET":
        return error("ERR the demo has no settings: CONFIG can only GET")
    return array(*(item for name in names for item in (bulk(name), bulk(b""))))


@attrs.frozen
class _Command:
    """How a command is answered, and how many words may follow its name."""

    answer: Callable[..., bytes]
    least: int = 0
    most: float = float("inf")


_COMMANDS = {
    b"PING": _Command(_ping, most=1),
    b"ECHO": _Command(lambda _store, message: bulk(message), least=1, most=1),
    b"SET": _Command(_set, least=2, most=2),
    b"GET": _Command(lambda store, key: bulk(store.get(key)), least=1, most=1),
    b"DEL": _Command(_delete, least=1),
    b"COMMAND": _Command(lambda _store, *_words: array()),
    b"HELLO": _Command(_hello),
    b"CLIENT": _Command(lambda _store, *_words: simple("OK"), least=1),
    b"CONFIG": _Command(_config, least=1),
    b"INFO": _Command(lambda _store, *_words: bulk(_INFO)),
    b"QUIT": _Command(lambda _store, *_words: simple("OK")),
}


def _answer(store: Store, name: bytes, words: list[bytes]) -> bytes:
    command = _COMMANDS.get(name.upper())
    if command is None:
        known = ", ".join(sorted(each.decode() for each in _COMMANDS))
        return error(f"ERR unknown command {ascii(name[:32])[1:]}; the demo knows {known}")
    if not command.least <= len(words) <= command.most:
        return error(f"ERR wrong number of arguments for '{name.decode().lower()}' command")
    return command.answer(store, *words)


class _Redis(DemoProtocol):
    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def step(self) -> bool:
        try:
            parsed = parse_command(self.pending)
        except RespError as cause:
            self.transport.write(error(f"ERR Protocol error: {cause}"))
            self.close()
            return False
        if parsed is None:
            return False
        words, length = parsed
        del self.pending[:length]
        if words:
            self.transport.write(_answer(self._store, words[0], words[1:]))
            if words[0].upper() == b"QUIT":
                self.close()
        return True


class RedisFactory(ServerFactory):
    """Makes servers that share one store.

    Args:
        store: Where they keep what clients set.
    """

    noisy = False

    def __init__(self, store: Store | None = None) -> None:
        self.protocol = partial(_Redis, store or Store())
