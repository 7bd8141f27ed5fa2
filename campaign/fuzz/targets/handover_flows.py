"""What an old process tells of its flows of datagrams to the one that reads them from now on.

An input is what comes over the channel. A flow that cannot be gone on with begins anew; but nothing is raised, no descriptor stays open
that came along, and when time goes on, each flow that was taken over ends.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from campaign.fuzz.descriptors import leaving_none_open
from campaign.fuzz.files import no_files
from campaign.fuzz.messages import adopt_and_hear, line
from campaign.fuzz.served import Reactor, serving
from campaign.fuzz.target import Target
from tests.wire.quic_builder import HELLO, crypto, initial
from txmux.serving.serving import Serving

_PLACE = "udp:127.0.0.1:443"
_LATER = 3600.0  # seconds


@contextmanager
def _with_port() -> Iterator[tuple[Serving, Reactor]]:
    with serving() as (running, reactor):
        with socket.socket(type=socket.SOCK_DGRAM) as opened:
            opened.bind(("127.0.0.1", 0))
            running.listen(running.udp_listener_of("quic"), _PLACE, opened)
        yield running, reactor


@leaving_none_open
def _check(data: bytes) -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as server,
        _with_port() as (running, reactor),
        no_files(),
    ):
        server.connect(("127.0.0.1", 1))
        adopt_and_hear(running, reactor, data, server)
        reactor.pump([_LATER] * 3)
        assert not running.connections(), [vars(one.record) for one in running.connections()]


def _told() -> dict[str, Any]:
    hello = initial(crypto(0, HELLO), source=bytes(range(8)))
    with _with_port() as (running, _):
        listener = running.udp_listener_of("quic")
        port = running.listening_ports.reader_at(_PLACE)
        assert port is not None
        flow = listener.begin_flow(port.port, (("127.0.0.1", 9), b""), memoryview(hello), 0)
        assert flow is not None
        flow.from_client(memoryview(hello), 0)
        told = flow.as_json()
    told["record"] |= {"id": "1-1", "time": 1.0, "local": "127.0.0.1:443"}
    return told


def _seeds() -> list[bytes]:
    unanswered = {**_told(), "has_socket": True, "held": []}
    relayed = {**unanswered, "answered": True}
    data = base64.b64encode(b"\x40hello").decode()
    peeking = {"state": "peeking", "held": [data], "way": None, "trail": None, "has_socket": False}
    remembered = {"state": "closing", "nowhere": "denied", "way": None, "has_socket": False}
    ways = {"state": "relaying", "has_socket": True, "trail": None}
    own_id = {"kind": "q", "own_id": "00" * 8, "ids": ["00" * 8]}
    return [
        _flows(1, relayed) + line("end_flows", reasons={"1-1": "done"}) + line("flows_done"),
        _flows(2, {**relayed, **ways}, {**unanswered, **ways, "peer": ["127.0.0.1", 10]}),
        _flows(0, {**relayed, **peeking}) + line("flows_done"),
        _flows(0, {**relayed, **remembered}) + line("flows_done"),
        _flows(0, {**relayed, "state": "connecting", "has_socket": False, "held": [data]}),
        _flows(1, {**relayed, "trail": own_id}),
    ]


def _flows(descriptors: int, *flows: dict[str, Any]) -> bytes:
    return line("adopt_flows", ask=1, descriptors=descriptors, flows=flows)


_WORDS = (
    b'"ask":1,', b'"descriptors":2,', b"null", b"1e999", b"-1", b"NaN", b"[]", b"{}", b'""',
    b'"state": "peeking"', b'"state": "relaying"', b'"state": "closing"', b"true", b"false",
    b"end_flows", b"flows_done", b'"trail": {"', b'"way": {"', b'"introduction": "',
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=4000)
