"""How the steps of a decision grow with the routes: each option of a matcher that is a name, in routes of each shape."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from ipaddress import ip_address, ip_network
from typing import Any

import attrs
import pytest
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.quic import initials
from tests.matchers.test_diameter import request as diameter_request
from tests.matchers.test_dns import message as dns_message
from tests.matchers.test_git import pkt_line
from tests.matchers.test_iscsi import login
from tests.matchers.test_minecraft import handshake
from tests.matchers.test_mqtt import connect as mqtt_connect
from tests.matchers.test_postgres import SSL_REQUEST, startup
from tests.matchers.test_stun import request as stun_request
from tests.support.growth import AT_NONE
from tests.wire.dtls_builder import dtls_body, hello_datagrams
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.detection.detector import Decision, Detector
from txmux.detection.flows import FlowDetection
from txmux.detection.registry import installed_matchers
from txmux.interfaces import Datagrams, Peeked, Transport
from txmux.rules.embedding import route
from txmux.rules.model import Route
from txmux.rules.model.client_certificate import CertificateCondition
from txmux.rules.model.networks import Clients, NetworkSet
from txmux.rules.model.route import Alternative, Period
from txmux.testing import steps_in

SIZES, FEWER_SIZES = (10, 100, 1000), (10, 100)
MUCH_USED = ("http host", "quic sni", "tls sni")


def _hello(name: str) -> bytes:
    return client_hello(server_name(name))


def _snmp(name: str) -> bytes:
    pdu = bytes.fromhex("a00b 020101 020100 020100 3000")
    body = b"\2\1\1\4" + bytes([len(name)]) + name.encode() + pdu
    return b"\x30" + bytes([len(body)]) + body


def _labels(name: str) -> bytes:
    return b"".join(bytes([len(one)]) + one.encode() for one in name.split(".")) + b"\0\0\1\0\1"


STREAMS: Mapping[tuple[str, str], Callable[[str], bytes]] = {
    ("diameter", "origin_host"): lambda name: diameter_request((264, name.encode()), (296, b"r.test")),
    ("diameter", "origin_realm"): lambda name: diameter_request((264, b"h.test"), (296, name.encode())),
    ("dns", "name"): lambda name: dns_message(_labels(name)),
    ("git", "host"): lambda name: pkt_line(f"git-upload-pack /a\0host={name}\0".encode()),
    ("http", "host"): lambda name: f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode(),
    ("iscsi", "initiator"): lambda name: login(f"InitiatorName={name}\0TargetName=t\0".encode()),
    ("iscsi", "target"): lambda name: login(f"InitiatorName=i\0TargetName={name}\0".encode()),
    ("minecraft", "host"): lambda name: handshake(name.encode()),
    ("mqtt", "client_id"): lambda name: mqtt_connect(name.encode()),
    ("postgres", "application"): lambda name: startup(b"user", b"u", b"application_name", name.encode()),
    ("postgres", "database"): lambda name: startup(b"user", b"u", b"database", name.encode()),
    ("postgres", "sni"): lambda name: SSL_REQUEST + records(_hello(name)),
    ("postgres", "user"): lambda name: startup(b"user", name.encode()),
    ("tls", "sni"): lambda name: records(_hello(name)),
    ("xmpp", "to"): lambda name: f"<stream:stream to='{name}' version='1.0'>".encode(),
}  # fmt: skip
DATAGRAMS: Mapping[tuple[str, str], Callable[[str], bytes]] = {
    ("dns", "name"): lambda name: dns_message(_labels(name))[2:],
    ("dtls", "sni"): lambda name: hello_datagrams(dtls_body(server_name(name)))[0],
    ("quic", "sni"): lambda name: next(initials(_hello(name), 1)),
    ("snmp", "community"): _snmp,
    ("stun", "username"): lambda name: stun_request(1, (6, name.encode())),
}
ONE_BY_ONE = {
    *itertools.product(("tls", "quic"), ("alpn", "version", "ech", "ja4")),
    *itertools.product(["dtls"], ("alpn", "version")),
    *itertools.product(["payload"], ("offset", "text", "hex", "mask")),
    *itertools.product(["http"], ("path", "method", "version", "upgrade")),
    ("dns", "type"), ("dns", "within"), ("git", "path"), ("ike", "version"), ("kcp", "conv"),
    ("rdp", "cookie"), ("rdp", "token"), ("regex", "pattern"), ("regex", "within"), ("ssh", "software"),
    ("silent", "after"), ("stun", "method"), ("sunrpc", "program"), ("wireguard", "key"), ("wireguard", "reserved"),
}  # fmt: skip
"""Options by which routes are tried one by one, as the page on performance says."""

OFFICE = Clients(NetworkSet([ip_network("10.0.0.0/8")]))
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "one line": {}, "two": {}, "three": {}, "negated": {},
    "from": {"clients": OFFICE},
    "during": {"during": (Period(frozenset({1})),)},
    "dry_run": {"dry_run": True},
    "client_cert": {"client_cert": CertificateCondition(frozenset({"any"}))},
    "under": {"under": ("outer",)},
}  # fmt: skip
OTHERS = {
    Transport.TCP: ("http host", "xmpp to", "tls sni"),
    Transport.UDP: ("snmp community", "quic sni", "dtls sni"),
}
ASKED = {"unknown": "none.test", "first": "h1000.test", "last": "h{}.test", "under": "x.h{}.test"}
"""Names that clients ask for, of routes that are called `h1000.test`, `h1001.test` …"""


@cache
def _line(matcher_and_option: str, number: int, transport: Transport) -> Alternative:
    text = f"{matcher_and_option}={'*.' * (number % 5 == 4)}h{1000 + number}.test"
    made = route(text, "close").for_transport(transport)
    assert made is not None
    return made.alternatives[0]


def _routes(which: str, shape: str, count: int, transport: Transport) -> Iterable[Route]:
    more = {"two": 1, "three": 2}.get(shape, 0)
    others = [other for other in OTHERS[transport] if other != which][:more]
    for number in range(count):
        lines = [_line(one, number, transport) for one in (which, *others)]
        lines[0] = attrs.evolve(lines[0], negated=shape == "negated")
        yield Route(str(number), tuple(lines), None, **SHAPES[shape])


def _decide(detector: Detector[Route], data: bytes, transport: Transport) -> Decision[Route]:
    peeked = Peeked(data) if transport is Transport.TCP else Datagrams((data,))
    decision = detector.decide_at_once(peeked)
    if decision is None and isinstance(peeked, Datagrams):
        flow = FlowDetection(detector, ip_address("192.0.2.1"), 0.0)
        flow.has_routes_for_client()
        decision = flow.feed(peeked.datagrams) or flow.finish()
        detector.guard(decision.route, peeked)
    elif decision is None:
        stream = detector.start_detection(ip_address("192.0.2.1"), 0.0)
        stream.can_decide()
        stream.has_routes_for_client()
        decision = stream.feed(data) or stream.finish()
    return decision


def _steps(which: str, shape: str, count: int, transport: Transport) -> dict[str, int]:
    detector = Detector(_routes(which, shape, count, transport))
    matcher, option = which.split()
    begin = (STREAMS if transport is Transport.TCP else DATAGRAMS)[matcher, option]
    flights = {name: begin(asked.format(999 + count)) for name, asked in ASKED.items()}
    if transport is Transport.TCP and shape != "negated":
        flights |= {f"half of {name}": data[: len(data) * 3 // 4] for name, data in flights.items()}
    for data in flights.values():  # the first client of a kind makes the plan
        _decide(detector, data, transport)
    return {
        name: steps_in(partial(_decide, detector, data, transport))
        for name, data in flights.items()
    }


@pytest.mark.by_turns(each=True)
class GrowthTests(SynchronousTestCase):
    def _assert_none(self, transport: Transport, options: Iterable[tuple[str, str]]) -> None:
        self.addCleanup(_line.cache_clear)
        grown = {}
        for (matcher, option), shape in itertools.product(options, SHAPES):
            which = f"{matcher} {option}"
            sizes = SIZES if which in MUCH_USED else FEWER_SIZES
            few, *more = (_steps(which, shape, count, transport) for count in sizes)
            for some in more:
                for name in few:
                    if some[name] > AT_NONE * few[name]:
                        grown[which, shape, name] = few[name], some[name]
                few = some
        self.assertEqual(grown, {})

    def test_streams_and_datagrams(self) -> None:
        self._assert_none(Transport.TCP, STREAMS)
        self._assert_none(Transport.UDP, DATAGRAMS)

    def test_each_option_is_known(self) -> None:
        own = (one for one in installed_matchers().values() if one.__module__.startswith("txmux."))
        found = {(matcher.name, option.name) for matcher in own for option in matcher.options}
        self.assertEqual(found, {*STREAMS, *DATAGRAMS, *ONE_BY_ONE})
