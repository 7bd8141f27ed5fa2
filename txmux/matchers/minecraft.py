"""The matcher for Minecraft (Java Edition)."""

import re
from collections.abc import Mapping

from zope.interface import implementer

from txmux.classes import define, frozen
from txmux.interfaces import IProtocolMatcher, NameKey, Option, Peeked, Predicate, Verdict
from txmux.wire import Cursor, MalformedError, begins_with, verdict_of
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, hosts, normal_host, option_globs

_LONGEST_HOST = 3 * 255
_PORT_AND_STATE = 3
_SHORTEST_PACKET = 1 + 1 + 1 + 1 + _PORT_AND_STATE
_LONGEST_PACKET = 1 + 5 + 2 + _LONGEST_HOST + _PORT_AND_STATE
_LONGEST = 2 + _LONGEST_PACKET
_HOST = re.compile(rb"(?!\x00)[!-~]*(?:\x00.*)?", re.DOTALL)
_APPENDED = re.compile("\0|//|/$")  # by mods, by proxies, and what may become the latter

_PING = b"\xfe\x01\xfa"
_CHANNEL = "MC|PingHost".encode("utf-16-be")
_LONGEST_LEGACY_HOST = 255


@define
class _MinecraftHandshake:
    """The handshake, as far as it has come; `ping` is that of the releases 1.4 to 1.6."""

    verdict: Verdict = Verdict.NEED_MORE
    host: str = ""
    host_known: bool = False
    ping: bool = False

    def read(self, cursor: Cursor) -> None:
        length = _varint(cursor, _SHORTEST_PACKET, _LONGEST_PACKET)
        end = cursor.at + length
        cursor.number(1, 0, 0)
        _varint(cursor, 0, 0xFFFFFFFF)
        size = _varint(cursor, 1, _LONGEST_HOST)
        if cursor.at + size + _PORT_AND_STATE != end:
            raise MalformedError
        there = cursor.data[cursor.at : cursor.at + size]
        if not _HOST.fullmatch(there):
            raise MalformedError
        self._set_host(there.decode("latin-1"))
        cursor.take(size)
        self.host_known = True
        cursor.take(2)
        cursor.number(1, 1, 3)

    def read_ping(self, cursor: Cursor) -> None:
        cursor.at = len(_PING)
        cursor.number(2, len(_CHANNEL) // 2, len(_CHANNEL) // 2)
        if begins_with(cursor.data[cursor.at : cursor.at + len(_CHANNEL)], _CHANNEL) is Verdict.NO:
            raise MalformedError
        cursor.take(len(_CHANNEL))
        rest = cursor.number(2, 7, 7 + 2 * _LONGEST_LEGACY_HOST)
        cursor.take(1)
        size = cursor.number(2, (rest - 7) // 2, (rest - 7) // 2)
        there = cursor.data[cursor.at : cursor.at + 2 * size]
        self._set_host(there[: len(there) // 2 * 2].decode("utf-16-be", "replace"))
        cursor.take(2 * size)
        self.host_known = True

    def _set_host(self, host: str) -> None:
        self.host = normal_host(_APPENDED.split(host, 1)[0])


@frozen
class _MinecraftPredicate:
    host: Globs | None
    key: NameKey | None
    longest: int = _LONGEST
    first_bytes: frozenset[int] = frozenset(range(_SHORTEST_PACKET, 0x100))

    def __call__(self, peeked: Peeked, /) -> Verdict:
        handshake = peeked.parsed(_parse)
        if self.host is None:
            return Verdict.MATCH if handshake.ping else handshake.verdict
        if handshake.verdict is Verdict.NO:
            return Verdict.NO
        is_complete = handshake.host_known
        fits = self.host.matches if is_complete else self.host.could_match_prefix
        return handshake.verdict if fits(handshake.host) else Verdict.NO

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        handshake = peeked.parsed(_parse)
        if handshake.verdict is not Verdict.MATCH or not handshake.host:
            return {}
        return {"host": printable(handshake.host)}


def _host(peeked: Peeked) -> str | None:
    handshake = peeked.parsed(_parse)
    if handshake.host_known:
        return handshake.host
    return "" if handshake.verdict is Verdict.NO else None


def _host_begun(peeked: Peeked) -> str:
    return peeked.parsed(_parse).host


@implementer(IProtocolMatcher)
class MinecraftMatcher:
    r"""Matches the handshake of a Minecraft client (Java Edition protocol, minecraft.wiki, "Handshake").

    That is a packet with the identifier 0: its length, the version of the protocol, the server address, the port,
    and the next state (status 1, login 2, transfer 3); numbers are varints, and all lengths have to agree. What mods
    write behind a NUL in the address (``\0FML\0``) does not count, nor what proxies write behind ``//`` or ``///`` (the
    address of the player, for TCPShield's RealIP and its like). The ping of the release 1.6 (``fe 01 fa``;
    "Server List Ping", minecraft.wiki) is one, too.
    """

    name = "minecraft"
    summary = "Minecraft (Java Edition), by the handshake"
    options = (
        Option(
            "host", "globs of the server address that was asked for", "*.mc.example.com", "host"
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        host = option_globs(options, "host", hosts)
        return _MinecraftPredicate(host, host.key(_host, _host_begun) if host else None)


minecraft = MinecraftMatcher()


def _parse(data: bytes, earlier: _MinecraftHandshake | None) -> _MinecraftHandshake:
    if earlier is not None and earlier.verdict is not Verdict.NEED_MORE:
        return earlier
    ping = begins_with(data, _PING)
    if ping is Verdict.NEED_MORE:
        return _MinecraftHandshake()
    handshake = _MinecraftHandshake(ping=ping is Verdict.MATCH)
    read = handshake.read_ping if handshake.ping else handshake.read
    handshake.verdict = verdict_of(data, read)
    return handshake


def _varint(cursor: Cursor, least: int, most: int) -> int:
    """Read a number of seven bits a byte, the least significant first, in as few bytes as it needs."""
    value = shift = 0
    while (byte := cursor.number(1, 0, 0xFF)) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        if value + (1 << shift) > most:
            raise MalformedError
    value |= byte << shift
    if not least <= value <= most or (shift and not byte):
        raise MalformedError
    return value
