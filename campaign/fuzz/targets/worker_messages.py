"""What the supervisor and a worker tell each other: lines of JSON, whatever is in them.

An input is what comes over the channel; its first byte says who hears it. A message may be answered by an error, and the channel
may be broken off; but nothing is raised, and no descriptor stays open that came along.
"""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace
from typing import Any

from campaign.fuzz.descriptors import leaving_none_open
from campaign.fuzz.files import no_files
from campaign.fuzz.messages import each, hear, line
from campaign.fuzz.served import RULES, Reactor, serving
from campaign.fuzz.target import Target
from txmux.access.admission import Tally
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel
from txmux.processes.supervisor.worker import Worker
from txmux.processes.worker.process import WorkerProcess
from txmux.processes.worker.transfer import ConnectionTransfer
from txmux.serving.serving import Serving
from txmux.telemetry.folding import FoldedLog
from txmux.telemetry.recent import Recent

_NOT_HERE = (messages.START, messages.COUNT_IN)
"""They change the process for good."""


@leaving_none_open
def _check(data: bytes) -> None:
    with socket.socket() as far, serving() as (running, reactor), no_files():
        make = _supervisor if data[:1] == b"p" else _worker
        hear(make(running, reactor), data[1:], far)


def _worker(running: Serving, reactor: Reactor) -> Channel:
    worker = WorkerProcess(1, reactor)
    worker.begin(running, ConnectionTransfer(running, reactor, Tally()))
    for kind in _NOT_HERE:
        del worker.channel.handlers[kind]
    return worker.channel


def _supervisor(_: Serving, reactor: Reactor) -> Channel:
    supervisor: Any = _Supervisor(reactor)
    worker = Worker(supervisor, 1, reactor)
    worker.listen(json.dumps)
    return Channel(worker.handlers, lambda: None, reactor)


class _Supervisor:
    def __init__(self, reactor: Reactor) -> None:
        self.state = SimpleNamespace(recent=Recent())
        self.folded_log = FoldedLog(reactor.seconds)

    def replace(self, worker: Worker) -> None:
        """Do nothing."""

    def report_waiting_clients(self, number: int, backend: str, *, waiting: bool) -> None:
        """Do nothing."""


def _seeds() -> list[bytes]:
    server = RULES.backends["ssh"].servers[0]
    told = {"backend": "ssh", "server": server.text, "target": server.text, "state": "down"}
    filters = {"listener": "web"}
    to_worker = [
        line("ping", ask=1),
        line("end_all") + line("stop"),
        line("check", backend="ssh", key=server.text, ok=False, why="x"),
        line("servers", ask=1),
        line("recall", state={"servers": [told], "wanted": {"shut": ["web"]}}),
        line(
            "recall",
            state={"sources": {"web": "AAAA"}, "networks": {"x": {"4": {"8": "CgAAAA=="}}}},
        ),
        line(
            "prepare", ask=1, descriptors=1, rules={}, limits={}, sockets=["x"], rules_changed=True
        ),
        line("commit", ask=1) + line("abandon") + line("leave", ask=2) + line("retire", ask=3),
        line("end_removed", routes=["tls"], backends=["web"]) + line("status", ask=1),
        line("take_datagrams", keys=["x"]) + line("await_flows") + line("flows_are_here"),
        line("connections", ask=1, filters=filters, limit=3, after="1-1"),
        line("close", ask=1, filters=filters, id="1-1")
        + line("close_server", ask=2, backend="web", server="x"),
        line(
            "apply_overrides",
            overrides={"servers": [{"backend": "web", "server": "x", "state": "drain"}]},
        ),
        line("ban", ask=1, rows=[[4, 8, 12, None], [6, 0, 1, 5.0], [4, 8, 12, 0]]),
        line("feed", told={"x": {"4": {"0": "AAAA"}}}) + line("count", ask=1, gauges=True),
        line("hand_over", ask=1, descriptors=2) + line("take_over", ask=2, descriptors=2),
        line("listen", on=True)
        + line("pause")
        + line("accept")
        + line("unknown", ask=3, descriptors=1),
        line("answer", to=1, value=2) + line("answer", to=2, error="x"),
    ]
    to_supervisor = [
        line("log", level="warn", text="x") + line("access", line="x"),
        line("event", event={"event": "x"}) + line("replace", ask=1),
    ]
    to_worker += each("worker")
    to_supervisor += each("supervisor")
    return [*(b"w" + one for one in to_worker), *(b"p" + one for one in to_supervisor)]


_WORDS = (
    b'{"kind":"', b'"ask":1,', b'"descriptors":1,', b'"descriptors":300,', b"null", b"1e999",
    b"NaN", b"[]", b"{}", b'""', b"-1", b"[[[[", b"\n", b'"filters":{', b'"state":{',
    b'"servers":[',
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=1500)
