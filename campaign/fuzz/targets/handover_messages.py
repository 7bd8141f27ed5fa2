"""What an old process tells the one that goes on with what it does.

The first byte of an input says what hears it: who takes connections and flows over (``a``), who begins (``b``), or what recalls the state (``s``).
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any

import attrs

from campaign.fuzz.descriptors import leaving_none_open
from campaign.fuzz.files import no_files
from campaign.fuzz.messages import adopt_and_hear, each, line
from campaign.fuzz.served import Reactor, serving
from campaign.fuzz.target import Target
from txmux.backends.pool.server_health import HealthRegistry
from txmux.control.rates import Rates
from txmux.errors import MuxError
from txmux.net.relay.interface import RelayState, SideState, Timeouts
from txmux.processes.upgrade.predecessor import Predecessor
from txmux.tcp.moving import MovedConnection, packed
from txmux.telemetry.record import ConnectionRecord


def _adopt(stream: bytes) -> None:
    with socket.socket() as far, serving() as (running, reactor):
        adopt_and_hear(running, reactor, stream, far)


def _begin(stream: bytes) -> None:
    """Hear what a process is given at its start."""
    own, end = socket.socketpair()
    with own, end, socket.socket() as far:
        # The first becomes the standard error stream.
        socket.send_fds(own, [stream.split(b"\n")[0] + b"\n"], [2, far.fileno()])
        own.shutdown(socket.SHUT_WR)
        with suppress(MuxError):
            for opened in Predecessor(end).sockets.values():
                opened.close()


def _recall(stream: bytes) -> None:
    """Go on with what is known. What cannot be read is refused as a whole; the old process then goes on."""
    with suppress(ValueError, RecursionError):
        state = json.loads(stream)
        if isinstance(state, dict):
            with serving() as (running, reactor):
                Rates(Reactor().seconds).restore(_listed(state.get("history")))
                HealthRegistry().expect(_listed(state.get("servers")))
                running.upstreams.known.expect(_listed(state.get("servers")))
                running.upstreams.restore(
                    [one for one in _listed(state.get("servers")) if isinstance(one, dict)]
                )
                reactor.advance(0)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


_HEARERS = {b"a": _adopt, b"b": _begin, b"s": _recall}


@leaving_none_open
def _check(data: bytes) -> None:
    with no_files():
        _HEARERS.get(data[:1], _adopt)(data[1:])


def _seeds() -> list[bytes]:
    record = ConnectionRecord(1.0, "1-1", "web", "192.0.2.1:1", route="tls", backend="web")
    side = SideState(11, b"SSH-2.0-a\r\n")
    relay = RelayState(side, side, 1.0, None)
    moved = MovedConnection(record, 1.0, logged=True, timeouts=Timeouts(), relay=relay)
    batch = line("adopt", ask=1, descriptors=2, batch=0, connections=packed([moved]))
    flow = {
        "record": attrs.asdict(record),
        "place": "udp:127.0.0.1:443",
        "peer": ["192.0.2.1", 1],
        "local": "",
        "state": "peeking",
        "has_socket": False,
    }
    server = {"backend": "web", "server": "127.0.0.1:8001", "target": "127.0.0.1:8001"}
    health = {"state": "ejected", "age": 1, "failed": [1], "out": 1, "credit": 1, "connections": 2}
    history = [{"ago": 1, "totals": {"connections": 1}, "active": 1}]
    state = {"version": 1, "servers": [{**server, **health}], "history": history}
    return [
        *(b"a" + one for one in each("taking worker")),
        b"a" + batch + line("go_on", batch=0, which=[0], kept=[0]) + line("received", ask=2),
        b"a" + batch,
        b"a" + line("adopt_flows", ask=1, descriptors=0, flows=[flow]) + line("flows_done"),
        b"a" + line("adopt_flows", ask=1, descriptors=1, flows=[{**flow, "has_socket": True}]),
        b"b" + line("begin", ask=1, version=1, sockets=["x"], state=state),
        b"s" + json.dumps(state).encode(),
    ]


_WORDS = (
    b'{"kind":"', b'"ask":1,', b'"descriptors":2,', b"null", b"1e999", b"NaN", b"[]", b"{}", b'""',
    b"adopt", b"go_on", b"adopt_flows", b"end_flows", b"flows_done", b"received", b'"batch":0,',
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=3000)
