"""Reloads that give listeners other names."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from unittest import mock

import attrs

from tests.support.kit import PATIENCE, Service, WorkersTestCase
from tests.support.proc import family_of

_RELOADS = 24
_SETTLED = 4
"""Reloads after which nothing grows any more."""

_LIMITED = """\
endpoint = 127.0.0.1:0
max_connections = 1
max_connections_per_source = 5
connection_rate_per_source = 10/s burst=20
"""


@attrs.frozen
class Mappings:
    """What a process has mapped.

    Attributes:
        limits: How often the memory of the limits.
        size: All of its address space, in MiB.
        descriptors: How many are open.
    """

    limits: int
    size: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Mappings:
        folder = Path(f"/proc/{pid}")
        size = re.search(r"VmSize:\s+(\d+)", (folder / "status").read_text())
        assert size is not None
        return cls(
            (folder / "maps").read_text().count("txmux limits"),
            int(size[1]) >> 10,
            len([*(folder / "fd").iterdir()]),
        )


class NewNamesTest(WorkersTestCase):
    """Each of the rules has a listener of a name of its own, with limits."""

    def test_flat(self) -> None:
        """No process takes more descriptors, mappings or address space, while connections of older rules go on."""
        # Otherwise the first thread, which may come at any time, has 64 MiB of addresses more.
        with mock.patch.dict(os.environ, MALLOC_ARENA_MAX="1"):
            mux = self.begin_limited()
        kept = []
        for port in mux.ports.values():
            client = self.client_at(port)
            client.sendall(b"x")
            kept.append((client, self.accept_from(self.server, b"x")))
        for number in range(_RELOADS):
            if number == _SETTLED:
                before = self.measured(mux)
            self.rename(mux, number + 1)
        for one, other in zip(before, self.measured(mux), strict=True):
            self.assertLessEqual(other.limits, one.limits)
            self.assertLessEqual(other.descriptors, one.descriptors + 2)
            self.assertLess(other.size - one.size, 16)
        self.all_end(kept)
        mux.take(2)
        mux.stop()

    def begin_limited(self, more: str = "") -> Service:
        """Start a service with a listener without limits, and `l0` with some."""
        self.server = self.backend()
        rules = f"{self.relaying(self.server)}[listen l0]\n{_LIMITED}{more}"
        mux = Service(self.folder, rules, "workers = 2")
        self.addCleanup(mux.child.end)
        mux.child.wait_for("serving with ")
        return mux

    def rename(self, mux: Service, number: int) -> None:
        mux.reload((r"(?<=listen l)\d+", str(number)))

    def client_at(self, port: int) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.addCleanup(client.close)
        return client

    def measured(self, mux: Service) -> list[Mappings]:
        return [Mappings.of(pid) for pid in family_of(mux.child.pid)]

    def test_unknown_client(self) -> None:
        """A client whose PROXY header comes only after its listener has gone does not count for another one."""
        header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nx"
        mux = self.begin_limited("accept_proxy_from = 127.0.0.1\nproxy_timeout = 10m\n")
        ends = [self.client_at(mux.ports["l0"])]
        self.rename(mux, 1)
        self.rename(mux, 2)
        match = mux.child.wait_for(r"listening on \S+:(\d+) for \[listen l2\]")
        ends.append(self.client_at(int(match[1])))
        for client in [*ends]:
            client.sendall(header)
            ends.append(self.accept_from(self.server, b"x"))
        for end in ends:
            end.close()
        self.assertEqual({line["listener"] for line in mux.take(2)}, {"l0", "l2"})
        mux.stop()
