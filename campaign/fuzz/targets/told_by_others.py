"""What other services tell: CrowdSec, Consul, Redis and the bans in it; and what txmux tells a server whose client's socket it hands over.

An input is a letter that says who tells, and the text.
"""

from __future__ import annotations

import ipaddress
import json
import math
from contextlib import suppress

from twisted.internet.task import Clock

from campaign.fuzz.target import Target, see
from tests.features.consul.stand_in import instances_in
from tests.features.sharing.machine import Machine
from txmux.access.bans import Ban
from txmux.access.dynamic_networks import pack
from txmux.adopt.receiving import NotGivenError
from txmux.adopt.receiving import read as read_handed_over
from txmux.features.consul.finding import MOST_INSTANCES, NotConsulError, next_index
from txmux.features.crowdsec.source import Decisions, DecisionsReader
from txmux.features.sharing.bans import SharedBans
from txmux.features.sharing.client import RedisError, ReplyParser
from txmux.features.sharing.store import Store
from txmux.wire import codec

_NOW = 1000.0


def _check(data: bytes) -> None:
    _TELLERS.get(data[:1], _crowdsec)(data[1:])


def _crowdsec(data: bytes) -> None:
    for take_in in ("replace", "change"):
        known, decisions = DecisionsReader(_NOW), Decisions()
        known.feed(json.dumps({"new": [_DECISION], "deleted": None}).encode())
        decisions.replace(known)
        reader = DecisionsReader(_NOW)
        with suppress(ValueError):
            for part in (data[:5], data[5:]):
                reader.feed(part)
            reader.end()
            getattr(decisions, take_in)(reader)
        pack(decisions.networks(_NOW))


def _consul(data: bytes) -> None:
    with suppress(NotConsulError):
        found = instances_in(data, passing=bool(len(data) % 2))
        see(len(found.addresses) <= MOST_INSTANCES)
        for one in found.addresses:
            ipaddress.ip_address(one.host)
            see(0 < one.port < 1 << 16 and 0 <= one.weight < 1 << 16, one)
    with suppress(NotConsulError):
        see(next_index(1, data.decode("latin-1")) >= 0)


def _redis(data: bytes) -> None:
    machine = Machine()
    shared = SharedBans(Clock(), Store("redis://192.0.2.1", "192.0.2.1"), machine.bans)
    for network, ban in shared.read_changes([*data.split(b"\n"), None]):
        see(network.prefixlen > 0)
        if ban is not None:
            json.dumps(ban.as_json(0.0), allow_nan=False)
            told = json.loads(json.dumps(codec.write(ban), allow_nan=False))
            see(codec.read(Ban, told) == ban, told)


def _replies(data: bytes) -> None:
    see(_parsed([data]) == _parsed([data[at : at + 3] for at in range(0, len(data), 3)]))


def _parsed(parts: list[bytes]) -> str:
    parser = ReplyParser()
    with suppress(RedisError):
        return repr([reply for part in parts for reply in parser.feed(part)])
    return ""


def _txmux(data: bytes) -> None:
    with suppress(NotGivenError):
        told = read_handed_over(data)
        see(math.isfinite(told.time), told)


_TELLERS = {b"c": _crowdsec, b"k": _consul, b"p": _replies, b"r": _redis, b"x": _txmux}
_DECISION = {"type": "ban", "scope": "Ip", "value": "192.0.2.7", "duration": "3h59m49.4s"}


def _seeds() -> list[bytes]:
    deleted = {**_DECISION, "scope": "Range", "value": "2001:db8::/32", "duration": "-1ms"}
    instance = {
        "Node": {"Address": "10.0.0.1"},
        "Service": {"Address": "", "Port": 80, "Weights": {"Passing": 2, "Warning": 1}},
        "Checks": [{"Status": "passing"}, {"Status": "warning"}],
    }
    client = {
        "version": 1,
        "id": "1-1",
        "time": 1.5,
        "listener": "web",
        "route": None,
        "client": ["192.0.2.1", 5],
        "local": ["::1", 443],
        "facts": {"sni": "a.example"},
    }
    network = ipaddress.ip_network("192.0.2.0/24")
    ban = {"network": str(network), "since": 10.0, "until": 20.0, "reason": "x"}
    records = [{**ban, "ban": is_ban} for is_ban in (True, False)]
    return [
        b"c" + json.dumps({"new": [_DECISION], "deleted": [deleted]}).encode(),
        b'c{"new": null, "deleted": null}',
        b"k" + json.dumps([instance]).encode(),
        b"k12",
        b"p*2\r\n$1\r\nx\r\n-ERR y\r\n:7\r\n$-1\r\n",
        b"r" + b"\n".join(json.dumps(one).encode() for one in records),
        b"x" + json.dumps(client).encode(),
    ]


_WORDS = (
    b"null", b"true", b"1e999", b"-1", b"1e400", b"NaN", b"[]", b"{}", b"[[[[", b'""', b"Infinity",
    b'"duration": "', b"9999999h", b'"value": "', b"/0", b"fe80::1%1", b"::ffff:1.2.3.4",
    b"\\ud800", b'"since": ', b'"until": ', b'"ban": ', b'"Weights": ', b'"Port": ', b'"Checks": ',
    b'"facts": ',
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=1200)
