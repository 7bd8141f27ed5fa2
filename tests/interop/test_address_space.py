"""A service whose address space is used up recovers."""

from __future__ import annotations

import contextlib
import re
import resource
from pathlib import Path

from tests.interop.children import PATIENCE, InteropTestCase, eventually, leave_unmeasured
from tests.interop.mux import Mux
from tests.processes.running import open_files, workers_of
from tests.support.echo import EchoServer

_CLIENTS = 400
_ROOM = 2 * 2**20
_TRACEBACKS = _CLIENTS // 4  # of whatever else memory lacks for, but not one a client


class AddressSpaceTests(InteropTestCase):
    """Many clients that send more than there is memory for."""

    def exhaust(self, relay: str) -> str:
        leave_unmeasured(
            self
        )  # coverage itself, written in C, crashes the process where there is no memory
        echo = self.own(EchoServer())
        rules = f"[route all]\nmatch = any\nbackend = 127.0.0.1:{echo.port}\n"
        mux = Mux(self.folder, rules, f"relay = {relay}")
        self.addCleanup(mux.child.end)
        self.assertTrue(self.is_served(mux, PATIENCE))
        (pid,) = workers_of(mux.child.pid)
        found = re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        assert found is not None
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(
            pid, resource.RLIMIT_AS, (int(found[1]) * 1024 + _ROOM, resource.RLIM_INFINITY)
        )
        clients = [mux.connect() for _ in range(_CLIENTS)]
        for client in clients:
            client.setblocking(False)  # noqa: FBT003 - the socket module's signature
            with contextlib.suppress(OSError):
                client.send(bytes(2**18))
        self.is_served(mux)  # or not: the service has looked at all of them by then
        for client in clients:
            client.close()
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, unlimited)
        eventually(lambda: self.is_served(mux), "clients are served again")
        self.assertTrue(all(self.is_served(mux, PATIENCE) for _ in range(20)))
        # One that was busy for too long on a slow machine has been replaced; none has crashed.
        self.assertNotRegex(mux.child.output, r"worker 1 (ended|was ended by signal (?!9 ))")
        eventually(
            lambda: all(len(open_files(one)) < 64 for one in workers_of(mux.child.pid)),
            "descriptors are free again",
        )
        self.assertLessEqual(mux.child.output.count("Traceback"), _TRACEBACKS)
        return mux.child.output

    def is_served(self, mux: Mux, patience: float = 20.0) -> bool:
        with contextlib.suppress(OSError), mux.connect() as client:
            client.settimeout(patience)
            client.sendall(b"x")
            return client.recv(1) == b"x"
        return False

    def test_kernel(self) -> None:
        self.exhaust("kernel")

    def test_portable(self) -> None:
        """The portable relay, which holds more for each client, so that there is surely not enough."""
        self.assertIn("there is no memory left", self.exhaust("portable"))
