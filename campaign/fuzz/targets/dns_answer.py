"""Answers of name servers, down to the addresses and services that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.python.failure import Failure

from campaign.fuzz.target import Target
from txmux.backends.names.addresses import AddressFinder
from txmux.backends.names.lookup import Lookup
from txmux.backends.names.question import (
    LookupFailedError,
    NameServers,
    ServerAddress,
    _DnsQuery,
    _response_code,
)
from txmux.rules.model import Server

_NAME = b"example.com"
_NUMBER = 0x1234
_NOWHERE = Path("/nonexistent")


class _Servers(NameServers):
    """One name server, which has one answer to all questions."""

    def __init__(self, said: bytes) -> None:
        super().__init__(Clock())
        self._said = said

    async def ask(self, places: Sequence[ServerAddress], name: bytes, kind: int) -> dns.Message:
        # Whatever was asked, what was said is made to be an answer to it.
        message = _DnsQuery(_NAME, kind, edns=True, number=_NUMBER).answer(_to(self._said, kind))
        if message is None:
            raise LookupFailedError("no answer")
        assert isinstance(_response_code(message), int)
        return message


def _to(said: bytes, kind: int) -> bytes:
    question = b"\7example\3com\0" + kind.to_bytes(2, "big") + b"\0\1"
    head = _NUMBER.to_bytes(2, "big") + b"\x81\x80\0\1" + said[:6].ljust(6, b"\0")
    return head + question + said[6:]


def _check(data: bytes) -> None:
    for kind, name in (("tcp", _NAME.decode()), ("srv", _NAME.decode())):
        lookup = Lookup(Clock(), [("192.0.2.1", 53)], _NOWHERE, _NOWHERE)
        lookup._name_servers = _Servers(data)
        server = Server(name, kind, host=f"{name}.", port=1)
        outcome: list[Any] = []
        Deferred.fromCoroutine(AddressFinder(lookup, server).find()).addBoth(outcome.append)
        assert outcome, "it waits for something"
        if isinstance(outcome[0], Failure):
            outcome[0].trap(LookupFailedError)
        else:
            for address in outcome[0].addresses:
                assert 0 <= address.port <= 0xFFFF
            assert outcome[0].ttl >= 0
    # All of it, as it has come.
    for edns in (True, False):
        message = _DnsQuery(_NAME, dns.A, edns, number=int.from_bytes(data[:2], "big")).answer(data)
        if message is not None:
            _response_code(message)


def _record(kind: int, data: bytes, ttl: int = 60, name: bytes = b"\xc0\x0c") -> bytes:
    head = kind.to_bytes(2, "big") + b"\0\1" + ttl.to_bytes(4, "big")
    return name + head + len(data).to_bytes(2, "big") + data


def _seeds() -> list[bytes]:
    a, aaaa = _record(dns.A, b"\x7f\0\0\1"), _record(dns.AAAA, bytes(15) + b"\1")
    cname = _record(dns.CNAME, b"\1a\xc0\x0c")
    srv = _record(dns.SRV, b"\0\1\0\2\0\x50\1b\xc0\x0c")
    opt = b"\0" + dns.OPT.to_bytes(2, "big") + b"\4\xd0\1\0\0\0\0\0"
    return [
        b"\0\1\0\0\0\0" + a,
        b"\0\1\0\0\0\0" + aaaa,
        b"\0\2\0\0\0\1" + cname + _record(dns.A, b"\x7f\0\0\1", name=b"\1a\xc0\x0c") + opt,
        b"\0\2\0\0\0\0" + srv + a,
        b"\0\3\0\0\0\0" + srv + _record(dns.A, b"\x7f\0\0\1", name=b"\1b\xc0\x0c") + aaaa,
        b"\0\0\0\1\0\0" + _record(dns.SOA, b"\0\0" + bytes(20)),
    ]


TARGET = Target(
    _check,
    _seeds,
    words=(b"\xc0\x0c", b"\0\1\0\1", b"\0\x1c\0\1", b"\0\x21\0\1", b"\0\5\0\1", b"\0\x29"),
    longest=1232,
)
