"""Pools of real servers behind the whole service: some die, some hang, one wants TLS."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

from tests.interop.children import Child, InteropTestCase, eventually, output_of
from tests.interop.mux import Mux, pool_rules
from tests.interop.servers import start_nginx, start_postgres, start_redis
from tests.processes.running import pids_of
from tests.support.ports import free_port

_SITE = """
server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ return 200 "{port}\\n"; }}
}}
"""


# Some clients that come again and again, each time with one request, and so often when standard input has ended; tells of each that got
# no whole answer.
_LOAD = """
import asyncio, sys
port, clients, times = map(int, sys.argv[1:])
good = 0
async def visit():
    global good
    own = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        own = writer.get_extra_info("sockname")[1]
        writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        answer = await asyncio.wait_for(reader.read(), 180)
        writer.close()
    except (OSError, asyncio.TimeoutError) as problem:
        answer = repr(problem).encode()
    if answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\\n"):
        good += 1
        if good == 100:
            print("under way", flush=True)
    else:
        print("lost", own, answer, flush=True)
async def come():
    left = times
    while left:
        left -= is_told.is_set()
        await visit()
        await asyncio.sleep(0.02)
async def main():
    global is_told
    is_told = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, is_told.set)
    await asyncio.gather(*(come() for _ in range(clients)))
    print("good", good, flush=True)
asyncio.run(main())
"""

_CLIENTS, _TIMES = 5, 60


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


class KilledTests(InteropTestCase):
    """Several nginx, of which one is killed."""

    def start_server(self, port: int) -> Child:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return self.own(start_nginx(folder, _SITE.format(port=port)))

    def kill(self, child: Child) -> None:
        pids = [*pids_of(child.pid), child.pid]
        child.process.kill()
        for pid in pids[:-1]:
            os.kill(pid, signal.SIGKILL)
        child.wait()

    def ask(self, mux: Mux) -> str:
        return output_of("curl", "-q", "-sS", f"http://127.0.0.1:{mux.port}/").decode().strip()

    def test_only_what_the_killed_server_had_accepted_is_lost(self) -> None:
        ports = [free_port() for _ in range(3)]
        servers = [self.start_server(port) for port in ports]
        for more in ("", "balance = least-connections", "check = http interval=500ms timeout=3m"):
            places = (f"127.0.0.1:{port}" for port in ports)
            mux = self.own(Mux(self.folder, pool_rules(*places, more=f"eject = for=1h\n{more}")))
            load = self.own(
                Child(
                    *(sys.executable, "-c", _LOAD, str(mux.port), str(_CLIENTS), str(_TIMES)),
                    stdin=True,
                )
            )
            load.wait_for("under way")
            self.kill(servers[0])
            load.say(b"")
            good = int(load.wait_for(r"^good (\d+)$")[1])
            lost = {int(port) for port in re.findall(r"^lost (\d+)", load.output, re.MULTILINE)}
            lines = mux.take(good + len(lost))
            killed = f"127.0.0.1:{ports[0]}"
            for line in lines:
                if _port(line["client"]) in lost:
                    self.assertEqual(line["server"], killed)
                else:
                    self.assertEqual(line["reason"], "done", line)
            self.assertLessEqual(len(lost), _CLIENTS)
            tried = [line for line in lines if "tried" in line["facts"]]
            self.assertEqual(
                {line["facts"]["tried"] for line in tried}, {f"{killed} connect-refused"}
            )
            self.assertGreater(len(tried), 0)
            # Two have found it out, and at most all others that were there at the same time.
            self.assertLessEqual(len(tried), 2 + _CLIENTS)
            mux.child.wait_for(rf"backend pool: {killed} is (ejected|down): ")
            servers[0] = self.start_server(ports[0])

    def test_check_brings_it_back(self) -> None:
        ports = [free_port() for _ in range(2)]
        servers = [self.start_server(port) for port in ports]
        check = "check = http interval=200ms timeout=3m rise=2 fall=2\neject = off"
        mux = self.own(
            Mux(self.folder, pool_rules(*(f"127.0.0.1:{port}" for port in ports), more=check))
        )
        self.assertEqual({self.ask(mux) for _ in range(4)}, {*map(str, ports)})
        mux.take(4)
        self.kill(servers[1])
        mux.child.wait_for(rf"backend pool: 127\.0\.0\.1:{ports[1]} is down: checks that failed: 2")
        self.assertEqual([self.ask(mux) for _ in range(4)], 4 * [str(ports[0])])
        self.assertEqual([line["facts"].get("tried") for line in mux.take(4)], 4 * [None])
        self.start_server(ports[1])
        mux.child.wait_for(rf"backend pool: 127\.0\.0\.1:{ports[1]} is up: checks that succeeded")
        self.assertEqual({self.ask(mux) for _ in range(4)}, {*map(str, ports)})
        self.assertEqual(mux.child.output.count(f"127.0.0.1:{ports[1]} is "), 2)


class HangingTests(InteropTestCase):
    """Servers that take connections and answer nobody, which only a check can find out."""

    def assert_found_out(self, child: Child, port: int, check: str) -> None:
        listening = f"127.0.0.1:{port}"
        # A server that works may be late on a busy machine, but not so much twice in a row.
        options = "interval=200ms timeout=4s rise=1 fall=2"
        more = f"check = {check} {options}\nfallback = reset"
        mux = self.own(Mux(self.folder, pool_rules(listening, more=more)))
        self.assertEqual(self.reason(mux), "done")
        child.process.send_signal(signal.SIGSTOP)
        mux.child.wait_for(rf"{listening} is down: checks that failed: 2, ")
        eventually(lambda: self.reason(mux) == "no-server", "the worker knows")
        child.process.send_signal(signal.SIGCONT)
        mux.child.wait_for(rf"{listening} is up: checks that succeeded: 1")
        eventually(lambda: self.reason(mux) == "done", "the worker knows")
        self.assertEqual(mux.child.output.count(f"{listening} is "), 2)

    def reason(self, mux: Mux) -> str:
        with mux.connect() as client:
            client.sendall(b"\r\n")
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
                while client.recv(1000):
                    pass
        reason: str = mux.take_one()["reason"]
        return "done" if reason in {"client-reset", "server-reset"} else reason

    def test_redis(self) -> None:
        redis = self.own(start_redis(self.folder))
        self.assert_found_out(redis.child, redis.port, "redis")

    def test_postgres(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="txmux-interop-postgres-"))
        self.addCleanup(shutil.rmtree, folder)
        port = free_port()
        postgres = self.own(start_postgres(folder, port))
        self.assert_found_out(postgres, port, "postgres")
