"""A service that runs out of descriptors or memory waits, says so, and goes on; and sockets that are inherited."""

import contextlib
import os
import re
import resource
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from tests.interop.children import PATIENCE, answered, eventually, run, write
from tests.support.kit import EchoServer, InteropTestCase, Service, Twist, leave_unmeasured
from tests.support.proc import cpu_time, family_of, open_files, workers_of

_LIMIT = 96
_MOST, _CLIENTS, _TIMES = 64, 100, 4
_FEW = ("sh", "-c", f'ulimit -n {_LIMIT}; exec "$@"', "sh")


# Opens one socket for IPv4 and IPv6, as `ListenStream=` with a number alone does, and hands it on.
PASS_ON = """
import os, socket, sys
opened = socket.socket(socket.AF_INET6)
opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
opened.bind(("::", 0))
opened.listen()
os.dup2(opened.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="public", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])
"""

_MANY = 400
_TRACEBACKS = _MANY // 4  # of whatever else memory lacks for, but not one a client


@pytest.mark.by_turns
class FullTests(InteropTestCase):
    def test_reload(self) -> None:
        """A worker without room for clients does nothing, says what to raise, and takes rules that shut somebody out, however many listeners there are, and a few more of these."""
        port = self.own(EchoServer()).port
        names = ("public", *map(str, range(30)))
        listeners = "".join(f"[listen {name}]\nendpoint = 127.0.0.1:0\n" for name in names)
        route = f"[route all]\nunder = *\nmatch = any\nbackend = 127.0.0.1:{port}\n"
        mux = self.own(Service(self.folder, f"{listeners}{route}", before=_FEW))
        with contextlib.ExitStack() as clients:
            while "clients wait until" not in mux.child.output:
                place = ("127.0.0.1", mux.ports["public"])
                clients.enter_context(socket.create_connection(place, PATIENCE)).sendall(b"x")
            self.assertIn("LimitNOFILE=", mux.child.output)
            eventually(lambda: self.is_at_rest(mux), "it rests")
            more = "".join(f"[listen more{one}]\nendpoint = 127.0.0.1:0\n" for one in range(4))
            # An option makes another port of its socket.
            option = (r"(\[listen 29\]\n)", r"\1keepalive = yes\n")
            for change in ((r"\Z", "not_from = 192.0.2.1\n"), option, (r"\Z", more)):
                self.assertIn("rules reloaded", mux.reload(change))
            more = "".join(f"[listen again{one}]\nendpoint = 127.0.0.1:0\n" for one in range(9))
            refused = mux.reload((r"\Z", more))
            needs = "a worker that starts needs some 108 descriptors, and may have 96"
            self.assertIn(needs, refused)
            refused = mux.reload((r"(?s)\[listen again0.*", ""), (r"\[listen ", "[listen new-"))
            self.assertIn("the limit: raise it (LimitNOFILE=, ulimit -n), or restart", refused)
        for name in ("public", "29"):
            self.assertEqual(answered(("127.0.0.1", mux.ports[name])), "x")

    def test_start(self) -> None:
        """A start with more listening sockets than a worker has descriptors for is refused, and `txmux check` says so before, with the line."""
        many = "[listen b]\nendpoint = udp:127.0.0.1:20001-20100\n"
        file = write(self.folder / "many.ini", f"[listen a]\nendpoint = :1\n{many}")
        said = []
        for command in ("check", "run"):
            done = run(*_FEW, sys.executable, "-m", "txmux", command, file)
            self.assertEqual(done.returncode, 1)
            said.append((done.stdout + done.stderr).decode())
        for one in said:
            needs = "a worker that starts needs some 222 desc"
            self.assertIn(f"with 101 listening sockets, {needs}", one)
        self.assertTrue(said[0].startswith(f"{file}:4: [listen b] endpoint: "), said[0])

    def is_at_rest(self, mux: Service) -> bool:
        before = cpu_time(family_of(mux.pid))
        # Not a wait for anything: the time over which the processor time is measured.
        time.sleep(1)
        return cpu_time(family_of(mux.pid)) - before < 0.2

    def served(self, family: int, address: object, begin: threading.Barrier) -> int:
        """Let one client come some times, at first with all others, and count how often it was served."""
        served = 0
        for number in range(_TIMES):
            with socket.socket(family) as client, contextlib.suppress(OSError):
                client.connect(address)  # type: ignore[arg-type]
                client.settimeout(PATIENCE)
                client.sendall(b"hello")
                if not number:
                    begin.wait(PATIENCE)
                served += client.recv(5) == b"hello"
        return served

    def churn(self, endpoint: str, relay: str, *before: str, gaps: bool = False) -> None:
        echo = self.own(EchoServer())
        own = f"[txmux]\naccess_log = off\nrelay = {relay}\n"
        text = f"{own}[listen public]\nendpoint = {endpoint}\n"
        text += f"[route all]\nmatch = any\nbackend = 127.0.0.1:{echo.port}\n"
        rules = write(self.folder / "rules.ini", text)
        hold = "exec 40</dev/null 50</dev/null; " if gaps else ""
        few = ("bash", "-c", f'ulimit -n {_MOST}; {hold}exec "$@"', "bash", *before)
        mux = self.own(Twist("--rules", rules, before=few))
        match = mux.child.wait_for(r"listening on (?:\S+:(\d+)|(\S+)) for")
        path = endpoint.removeprefix("unix:")
        address = ("127.0.0.1", int(match[1])) if match[1] else path
        family = socket.AF_INET if match[1] else socket.AF_UNIX
        mux.child.wait_for("Starting reactor")
        begin, began = threading.Barrier(_CLIENTS), time.monotonic()
        with ThreadPoolExecutor(_CLIENTS) as threads:
            served = threads.map(lambda _: self.served(family, address, begin), range(_CLIENTS))
            self.assertEqual(sum(served), _CLIENTS * _TIMES, mux.child.output)
        mux.child.wait_for("no client is waiting to be accepted any longer")
        said = mux.child.output
        # It is over when for a second nobody had to wait, and on a busy machine may begin again.
        begins = said.count("cannot accept")
        self.assertLessEqual(begins, 1 + (time.monotonic() - began) // 1, said)
        self.assertGreater(begins, 0)
        self.assertLessEqual(begins - said.count("no client is waiting"), 1, said)
        self.assertNotIn("EMFILE", said)

    def test_every_kind_of_port(self) -> None:
        """A hundred clients come again and again, by both relays; with high numbers in use, and with a socket that was opened before."""
        opener = (sys.executable, "-c", PASS_ON)
        self.churn("127.0.0.1:0", "auto", gaps=True)
        for relay in ("auto", "portable"):
            self.churn("127.0.0.1:0", relay)
            self.churn(f"unix:{self.folder / relay}", relay)
            self.churn("systemd:domain=INET:index=0", relay, *opener)

    def test_clients_are_served_once_there_is_memory_again(self) -> None:
        """The portable relay holds more for each client, so that there is surely not enough; the campaign tries the other one."""
        leave_unmeasured(self)  # its C code crashes the process where there is no memory
        echo = self.own(EchoServer())
        rules = f"[route all]\nmatch = any\nbackend = 127.0.0.1:{echo.port}\n"
        # Otherwise it has what glibc has kept for a thread: 64 MiB of addresses.
        with mock.patch.dict(os.environ, MALLOC_ARENA_MAX="1"):
            mux = Service(self.folder, rules, "relay = portable")
        self.addCleanup(mux.child.end)
        self.assertTrue(self.is_served(mux, PATIENCE))
        (pid,) = workers_of(mux.child.pid)
        match = re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        assert match is not None
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        little = (int(match[1]) * 1024 + (2**18), resource.RLIM_INFINITY)
        resource.prlimit(pid, resource.RLIMIT_AS, little)
        clients = [mux.connect() for _ in range(_MANY)]
        for client in clients:
            client.setblocking(False)  # noqa: FBT003 - the socket module's signature
            with contextlib.suppress(OSError):
                client.send(bytes(2**18))
        self.is_served(mux)  # or not
        mux.child.wait_for("out of memory")
        for client in clients:
            client.close()
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, unlimited)
        eventually(lambda: self.is_served(mux), "clients are served again")
        self.assertTrue(all(self.is_served(mux, PATIENCE) for _ in range(20)))
        # One that was busy for too long on a slow machine has been replaced; none has crashed.
        self.assertNotRegex(mux.child.output, r"worker 1 (ended|was killed by signal (?!9 ))")
        eventually(
            lambda: all(len(open_files(one)) < 64 for one in workers_of(mux.child.pid)),
            "descriptors are free again",
        )
        self.assertLessEqual(mux.child.output.count("Traceback"), _TRACEBACKS)

    def is_served(self, mux: Service, patience: float = 20.0) -> bool:
        return answered(("127.0.0.1", mux.port), patience=patience) == "x"
