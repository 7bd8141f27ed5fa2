"""What stops the start of a service."""

import json
import os
import shutil
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.changes import change_constants
from tests.support.forks import starter
from tests.support.kit import PATIENCE, SupervisedTestCase, WorkersTestCase, pair, reactor, run
from tests.support.proc import open_files
from tests.support.services import twist_command
from txmux import MuxService, load
from txmux.access.across_processes import SharedLimits
from txmux.admin.listen_addresses import automatic_addresses
from txmux.detection.registry import installed_matchers
from txmux.errors import ListenError, MuxError
from txmux.processes import liveness
from txmux.processes.supervisor.pool import WorkersError
from txmux.processes.usable import unusable
from txmux.processes.worker import process
from txmux.rules.lint.privileges import obstacles
from txmux.rules.model import Listener, Rules, Settings
from txmux.rules.packing import pack
from txmux.rules.reading.parser import parse

TWO = "[txmux]\nworkers = 2\n"


class TwistTest(WorkersTestCase):
    def test_port_taken(self) -> None:
        """A port that is taken, be it by a program that would share it, is one clear line."""
        rules = self.folder / "rules.ini"
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            endpoint = f"127.0.0.1:{port}"
            rules.write_text(f"{TWO}[listen public]\nendpoint = 127.0.0.1:0\n    {endpoint}\n")
            done = run(*twist_command(), "txmux", "--rules", rules)
            # What only a worker finds out ends the service, with the reason and a status that says so.
            by_worker = f"haproxy:tcp:{port}:interface=127.0.0.1"
            rules.write_text(f"[listen public]\nendpoint = {by_worker}\n")
            failed = run(*twist_command(), "--log-format=text", "txmux", "--rules", rules)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertEqual(
            done.stderr.decode(),
            f"{rules}:5: [listen public] endpoint: cannot listen at {endpoint}: Address already in use; "
            "another program has it (ss -ltnp shows which): stop that one or choose another port\n",
        )
        said = (failed.stdout + failed.stderr).decode()
        self.assertEqual(said.count("#error"), 1, said)
        self.assertRegex(said, r"worker 1 cannot start: .*Address already in use.*; stopping\n")
        self.assertNotIn("Traceback", said)
        self.assertEqual(failed.returncode, 1)


class StoppableReactor:
    """The real reactor, but that it only tells when it is to stop."""

    def __init__(self) -> None:
        self.stopped: Deferred[None] = Deferred()

    def stop(self) -> None:
        self.stopped.callback(None)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class ServiceTest(SupervisedTestCase):
    def test_made_in_python(self) -> None:
        """Rules that come from no file are for programs that embed txmux; nor can workers have a matcher that one has given to `load`."""
        made = Rules(Path("x"), Settings(workers=2), (Listener("x", ("127.0.0.1:0",)),), ())
        self.write("[listen a]\nendpoint = :1\n[route r]\nmatch = own\nbackend = close\n")
        for rules in (made, load(self.file, {"own": installed_matchers()["ssh"]})):
            with self.assertRaisesRegex(WorkersError, "EmbeddedService"):
                MuxService(rules, reactor=reactor).startService()

    async def test_other_endpoints_are_closed_if_one_cannot_be_opened(self) -> None:
        path = self.folder / "socket"
        more = f"    unix:{path}\n    systemd:domain=INET:index=7\n"
        service = self.service(f"{TWO}[listen x]\nendpoint = 127.0.0.1:0\n{more}")
        before = self.sockets()
        with self.assertRaisesRegex(ListenError, "cannot listen at .*index=7: no such socket"):
            service.startService()
        await deferLater(reactor, 0)
        self.assertEqual(self.sockets() - before, set())
        self.assertFalse(path.exists())

    def sockets(self) -> set[str]:
        return {name for name in open_files(os.getpid()) if "socket:" in name}

    def test_check_agrees(self) -> None:
        """What keeps the service from starting is an error of the check."""
        missing = self.folder / "no"
        for settings, endpoint in (
            (f"access_log = {missing}/log", "127.0.0.1:0"),
            (f"access_log = {self.folder}", "127.0.0.1:0"),
            (f"admin = unix:{missing}/socket", "127.0.0.1:0"),
            (f"admin = 127.0.0.1:0\nadmin_token = {missing}/token", "127.0.0.1:0"),
            (f"metrics = unix:{missing}/socket", "127.0.0.1:0"),
            ("", f"unix:{missing}/socket"),
        ):
            service = self.service(f"[txmux]\n{settings}\n[listen x]\nendpoint = {endpoint}\n")
            (problem,) = obstacles(service.control.rules)
            self.assertFalse(problem.warning, problem)
            error = self.assertRaises(MuxError, service.startService)
            if "cannot listen" in str(problem):
                self.assertEqual(str(error), str(problem))

    async def test_unit_in_the_place_of_admin(self) -> None:
        """No other owner listens where commands ask the service, as check says, too."""
        units = self.folder / "d"
        units.mkdir()
        folder, name = automatic_addresses(self.file)[0].key.removeprefix("unix:").rsplit("/", 1)
        (units / "link").symlink_to(folder)
        place = f"unix:{units}/link/{name}"
        (units / "a.ini").write_text(f"[listen a]\nendpoint = {place}\n")
        await self.run_service("[txmux]\ninclude = d/*.ini\n[listen x]\nendpoint = 127.0.0.1:0\n")
        [[problem, *_]] = self.running.control.rules.files.untaken.values()
        self.assertIn("is for 'admin = auto' of [txmux]; write another path", problem.message)
        self.assertIn(str(problem), [*map(str, unusable(load(self.file)))])

    async def test_no_such_program(self) -> None:
        """Where no process can be started of which workers are forked, the reactor stops, and the service tells why."""
        stoppable = StoppableReactor()
        change_constants(self, sys, executable=shutil.which("false"))
        self.write("[listen x]\nendpoint = 127.0.0.1:0\n")
        service = MuxService(load(self.file), reactor=stoppable)
        with capturedLogs() as events:
            service.startService()
            await stoppable.stopped
            await service.stopService()
        self.assertEqual(
            str(service.failure),
            "worker 1 cannot be started: the process that starts workers has ended",
        )
        told = [event for event in events if event["log_level"].name == "error"]
        self.assertEqual([event["error"] for event in told], [service.failure])


_LISTENS = "[listen x]\nendpoint = ssl:0\n"
_UNHEARD = """
import socket, sys
from txmux import files
from txmux.processes.worker import process

def denied(*_):
    raise PermissionError(13, "Permission denied")

files._open_own = denied
process._PATIENCE = 0.2
end = socket.socket(fileno=int(sys.argv[1]))
sys.exit(process.run(1, end, reactor=sys.argv[2], sandbox="off", listener_to=end.dup()))
"""
"""A worker that has to ask for every file, and has little patience."""


class WorkerTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.own, self.other = pair(self)
        self.own.settimeout(PATIENCE)

    def error(self, rules: Rules | None, opener: Sequence[int] = ()) -> str:
        """Have the worker start with these rules, perhaps with what leads to a helper, and give why it cannot."""
        limits = SharedLimits.make(parse(_LISTENS, "x"), 1)
        self.addCleanup(limits.close)
        descriptors = [limits.descriptor, *opener]
        start = {
            "kind": "start",
            "ask": 7,
            "descriptors": len(descriptors),
            "rules": "nothing" if rules is None else b64encode(pack(rules)).decode(),
            "version": 1,
            "state": {},
            "limits": attrs.asdict(limits.layout),
            "column": 1,
            "may_lack": False,
            "sockets": [],
            "opener": bool(opener),
        }
        socket.send_fds(self.own, [json.dumps(start).encode() + b"\n"], descriptors)
        self.other.close()
        with self.own.makefile() as channel:
            (told,) = map(json.loads, channel)
        self.assertEqual((told["kind"], told["to"]), ("answer", 7))
        return str(told["error"])

    def test_worker_says_what_is_wrong_and_ends(self) -> None:
        forking = starter()
        self.addCleanup(forking.connection.close)
        how = {"number": 1, "reactor": type(reactor).__module__, "sandbox": "auto"}
        fork = json.dumps({"kind": "fork", "ask": 3, "descriptors": 1, **how}).encode() + b"\n"
        socket.send_fds(forking.connection, [fork], [self.other.fileno()])
        self.assertIn("Incorrect padding", self.error(None))
        forked, ended = (json.loads(forking.connection.recv(1000)) for _ in range(2))
        self.assertEqual(forked, {"kind": "answer", "to": 3, "value": ended["pid"]})
        self.assertEqual(ended, {"kind": "ended", "pid": ended["pid"], "status": 256})

    def test_helper_does_not_answer(self) -> None:
        """It does not wait for a helper for as long as the supervisor waits for it."""
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number, module = self.other.fileno(), type(reactor).__module__
        command = [sys.executable, "-c", _UNHEARD, str(number), module]
        worker = subprocess.Popen(command, pass_fds=[number])
        self.addCleanup(worker.wait)
        self.addCleanup(worker.kill)
        rules = f"[txmux]\ngeo_databases = places.mmdb\n{_LISTENS}deny = geo:country=FR\n"
        with own, other:
            error = self.error(parse(rules, "x"), [other.fileno()])
        self.assertIn("the helper that opens files cannot be reached: timed out", error)
        self.assertLess(process._PATIENCE, liveness.MOST_SILENT)
