"""The example of HAProxy in front of three machines with txmux, each in a network of its own, which are upgraded and restarted one after another.

The long form, with 20,000 connections, runs with ``TXMUX_LONG=1``, and prints its figures.
"""

from __future__ import annotations

import os
import signal
import sys

from tests.interop.children import Child, eventually, output_of
from tests.interop.namespaces import Namespace, mounted
from tests.interop.originals import client_hello
from tests.interop.scenario import EXAMPLES, ScenarioTestCase
from tests.programs import require_program
from tests.support.proc import is_gone
from tests.support.services import Twist

_FILES = EXAMPLES / "balancer"
_SERVERS = ("192.0.2.21", "192.0.2.22")
_IS_LONG = bool(os.environ.get("TXMUX_LONG"))

# Answers each client, when it has said something, with who it is; half a second later, so that many connections are established at any time.
_SERVER = """
import asyncio, sys
async def serve(reader, writer):
    try:
        if await reader.read(10_000):
            await asyncio.sleep(0.5)
            writer.write(b"hello " + b"x" * 10_000 + b" done")
            await writer.drain()
    except OSError:
        pass
    writer.close()
async def main():
    servers = [await asyncio.start_server(serve, address, 8443, backlog=1000) for address in sys.argv[1:]]
    print("serving", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))
asyncio.run(main())
"""

# A number of clients a second, until standard input ends and at least a number have come; tells of each that got no whole answer.
_LOAD = """
import asyncio, sys, threading
rate, least, hello = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
good, longest = 0, 0.0
clock = None
async def visit():
    global good, longest
    begun, answer = clock(), b""
    try:
        reader, writer = await asyncio.open_connection("192.0.2.10", 443)
        writer.write(hello)
        answer = await asyncio.wait_for(reader.read(), 180)
        writer.close()
    except (OSError, asyncio.TimeoutError) as problem:
        answer = repr(problem).encode()
    longest = max(longest, clock() - begun)
    if answer.startswith(b"hello ") and answer.endswith(b" done") and len(answer) == 10_011:
        good += 1
    else:
        print("lost", answer[:100], flush=True)
async def main():
    global clock
    clock = asyncio.get_running_loop().time
    begun, visits, number = clock(), set(), 0
    while number < least or not over.is_set():
        # On a machine that is too busy for this rate, more and more of them would be under way.
        while len(visits) >= 2 * rate:
            await asyncio.wait(visits, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(max(0, begun + number / rate - clock()))
        visit_now = asyncio.ensure_future(visit())
        visits.add(visit_now)
        visit_now.add_done_callback(visits.discard)
        number += 1
        if number == rate:
            print("under way", flush=True)
    took = clock() - begun
    await asyncio.gather(*visits)
    print(f"good {good} of {number} in {took:.1f} s, the longest {longest:.2f} s", flush=True)
asyncio.run(main())
"""


class _Machine:
    """One of three: a network of its own, and txmux with the file of the example."""

    def __init__(self, test: BalancerTests, name: str, number: int) -> None:
        self.name = name
        self.network = Namespace(test)
        test.network.plug(self.network, f"192.0.2.{number}")
        self._run = test.folder / name
        (self._run / "txmux").mkdir(parents=True)
        self._pidfile = test.folder / f"{name}.pid"
        self.children: list[Child] = []
        self.start()

    @property
    def pid(self) -> int:
        return int(self._pidfile.read_text())

    def start(self) -> None:
        before = (*self.network.command, *mounted({"/run": self._run}), "env", "RUNTIME_DIRECTORY=")
        options = ("--rules", _FILES / "rules.ini", "--pidfile", self._pidfile)
        self.txmux = Twist(*options, before=before)
        self.txmux.child.allow(1000)
        self.children.append(self.txmux.child)
        self.txmux.child.wait_for("Starting reactor")
        eventually(self._pidfile.exists, "txmux serves")

    def has_served(self) -> bool:
        """Tell whether clients have come since it was started, of whom HAProxy has told."""
        return " facts.proxy_peer=192.0.2.10" in self.txmux.child.output

    def ask(self, command: str) -> bytes:
        endpoint = f"unix:{self._run / 'txmux' / 'rules.sock'}"
        return output_of(sys.executable, "-m", "txmux", command, "--admin", endpoint)

    def upgrade(self) -> None:
        old = self.pid
        self.ask("upgrade")
        eventually(lambda: self.pid != old and is_gone(old), "the old process has ended")

    def stop(self) -> None:
        old = self.pid
        os.kill(old, signal.SIGTERM)
        eventually(lambda: is_gone(old), "txmux has ended")
        self.txmux.child.wait()

    def end(self) -> None:
        if self._pidfile.exists() and not is_gone(self.pid):
            os.kill(self.pid, signal.SIGKILL)
        self.txmux.child.wait()


class BalancerTests(ScenarioTestCase):
    """Clients come at a steady rate, and none of them may be lost."""

    def said(self, name: str, what: str) -> int:
        return self.haproxy.output.count(f"Server txmux/{name} is {what}")

    def restart(self, machine: _Machine) -> None:
        downs, ups = (self.said(machine.name, what) for what in ("DOWN", "UP"))
        machine.stop()
        self.assertEqual(self.said(machine.name, "DOWN"), downs + 1)
        machine.start()
        eventually(lambda: self.said(machine.name, "UP") > ups, "HAProxy has found it again")
        eventually(machine.has_served, "clients come to it again")

    def test_rolling(self) -> None:
        """While each txmux is upgraded, and restarted after that, every one of 200 clients a second gets its whole answer."""
        require_program("haproxy")
        self.network.make_lan("192.0.2.10", *_SERVERS)
        serve = (sys.executable, "-c", _SERVER, *_SERVERS)
        self.own(Child(*serve, ready="serving", limit=1000))
        named = enumerate(("one", "two", "three"), start=11)
        machines = [self.own(_Machine(self, name, number)) for number, name in named]
        haproxy = ("haproxy", "-W", "-db", "-f", _FILES / "haproxy.cfg")
        self.haproxy = self.own(Child(*haproxy, ready="Loading success", limit=1000))
        least = "20000" if _IS_LONG else "0"
        words = ("-c", _LOAD, "200", least, client_hello("www.example.com").hex())
        load = Child(sys.executable, *words, stdin=True, ready="under way", limit=1000)
        self.own(load)
        for _ in range(3 if _IS_LONG else 1):
            for machine in machines:
                machine.upgrade()
            for machine in machines if _IS_LONG else machines[:1]:
                self.restart(machine)
        load.say(b"")
        load.process.wait(300)
        load.wait()
        match = load.wait_for(r"good (\d+) of (\d+) in .*")
        sys.stdout.write(f"{self.id()}: {match[0]}\n")
        self.assertEqual((load.output.count("lost"), match[1]), (0, match[2]), load.output)
        for machine in machines:
            self.assertNotIn("Traceback", "".join(child.output for child in machine.children))
            self.assertTrue(machine.has_served())
