"""Bytes of clients are parsed by confined processes alone, whoever wants to know what they mean."""

import ast
import json
import struct
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.processes import get, post, text_of
from tests.processes.running import use_plugin
from tests.support.changes import change_environment
from tests.support.kit import Service, eventually, leave_unmeasured, make_folder, run
from tests.test_structure import parsed
from txmux.processes.worker import landlock

pytestmark = pytest.mark.by_turns(each=True)
LISTEN = "[listen public]\nendpoint = 127.0.0.1:0\n"
SPYING = "[route spying]\nmatch = spying\nbackend = 127.0.0.1:9\n"
NO, YES = {"spying": "no"}, {"spying": "match"}


def says(explained: Any) -> dict[str, str]:
    (listener,) = explained["streams"][0]["listeners"]
    return {route["route"]: route["says"] for route in listener["routes"]}


ASKING = frozenset(
    {
        *("Datagrams", "Detection", "Detector", "FlowDetection", "Peeked", "Tracer"),
        *("captured", "decide_at_once", "explain", "explain_in_steps", "start_detection"),
        "matcher_of",
    }
)
"""Names by which code asks matchers about bytes; what has them itself is `DEFINING`."""
DEFINING = ("detection/", "interfaces.py", "matchers/", "testing/", "wire/")
WORKER = "a worker"
OWN_BYTES = "any: it has written these bytes itself"
CALLERS = {
    "cli/explain.py": "the command's own, which confines itself first",
    "client/configuration.py": WORKER,
    "control/explaining.py": WORKER,
    "control/worker_answers.py": WORKER,
    "features/acme/challenges.py": WORKER,
    "features/ech/warnings.py": OWN_BYTES,
    "features/misdirected/check.py": OWN_BYTES,
    "features/misdirected/places.py": f"{WORKER}; by misdirected/check, see there",
    "features/trial/comparing.py": WORKER,
    "features/trial/memory.py": WORKER,
    "features/tunnels/stage.py": WORKER,
    "rules/lint/patterns.py": OWN_BYTES,
    "rules/tracer.py": "that of features/trial/memory or cli/explain",
    "tcp/answers.py": WORKER,
    "tcp/connection.py": WORKER,
    "tcp/stage.py": WORKER,
    "tcp/stages/connecting.py": WORKER,
    "tcp/stages/peeking.py": WORKER,
    "tcp/stages/turning_away.py": WORKER,
    "udp/flow.py": WORKER,
}
"""What asks a detector, or a matcher, about bytes, and the process in which it does: none with rights that a worker lacks parses a client's."""


def asks(code: ast.Module) -> bool:
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("txmux."):
            names = {alias.name for alias in node.names}
        else:
            names = {getattr(getattr(node, "func", None), "attr", "")} - {"explain"}
        if names & ASKING:
            return True
    return False


class CallersTests(SynchronousTestCase):
    def test_callers(self) -> None:
        """Each has a row that names its process; `ConfinedParsingTests` shows by a matcher with a hole that this is so."""
        having = rf"\b({'|'.join(ASKING)})\b"
        found = {str(path) for path, code in parsed(having).items() if asks(code)}
        callers = {path for path in found if not path.startswith((*DEFINING, "txmux_convert"))}
        self.assertEqual(callers, CALLERS.keys())


class ConfinedParsingTests(SynchronousTestCase):
    """The matcher of these rules takes a client if the process in which it is asked may read a secret."""

    def setUp(self) -> None:
        if not landlock.abi():
            raise SkipTest("this kernel has no Landlock")
        leave_unmeasured(self)
        self.folder = make_folder(self)
        self.folder.chmod(0o755)
        (self.folder / "secret").write_text("precious")
        use_plugin(self, "spying")
        change_environment(self, SPYING_FOLDER=str(self.folder))
        self.admin = self.folder / "admin.sock"

    def test_trial_and_explained(self) -> None:
        # `reload --try`, and what `watch_rules` finds, ask the workers where their clients would go.
        settings = f"admin = unix:{self.admin}\nworkers = 2\nremember = 10\nwatch_rules = 1s\nwatch_rules_limit = 0%"
        mux = Service(self.folder, LISTEN, settings, program="run")
        self.addCleanup(mux.stop)
        with mux.connect() as client:
            client.sendall(b"spy")
            client.recv(1)
        eventually(lambda: get(self.admin, "/api/recent"), "its end is reported")
        mux.file.write_text(mux.file.read_text() + SPYING)
        tried = post(self.admin, "/api/reload/try")
        self.assertEqual((tried["clients"], tried["moves"]), (1, []))
        eventually(
            lambda: "route spying" in str(get(self.admin, "/api/rules")),
            "the rules are in force, since nobody would go elsewhere",
        )
        # The API and the page explain by a worker, and name what an unrecognised client speaks by one.
        self.assertEqual(says(post(self.admin, "/api/explain", {"text": "spy"})), NO)
        page = text_of(self.admin, "/?explain=737079")
        self.assertIn("match = payload text=spy", page)
        self.assertNotIn('data-copy="match = spying"', page)
        self.assertRegex(page, r"spying +no")

    def explain(self, *options: str | Path, settings: str = "") -> dict[str, str]:
        rules = self.folder / "rules.ini"
        rules.write_text(f"[txmux]\n{settings}\n{LISTEN}{SPYING}")
        done = run(sys.executable, "-m", "txmux", "explain", "--json", rules, *options)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return says(json.loads(done.stdout))

    def test_command(self) -> None:
        """`txmux explain` confines itself once it has opened what it was given, also a capture."""
        self.assertEqual(self.explain("--text", "spy"), NO)
        (self.folder / "bytes").write_bytes(b"spy")
        self.assertEqual(self.explain("--file", self.folder / "bytes"), NO)
        capture = self.folder / "clients.pcap"
        capture.write_bytes(captured(b"spy"))
        self.assertEqual(self.explain("--pcap", capture), NO)
        self.assertEqual(self.explain("--text", "spy", settings="sandbox = off"), YES)


class NoSandboxTests(SynchronousTestCase):
    def test_command(self) -> None:
        """The rules demand a sandbox of the service; `txmux explain` can do without, also on another machine."""
        leave_unmeasured(self)
        rules = make_folder(self) / "rules.ini"
        rules.write_text(f"[txmux]\nsandbox = yes\n{LISTEN}")
        code = (
            "from txmux.processes.worker import landlock\n"
            "def missing(): raise OSError(95, 'Operation not supported')\n"
            "landlock.give_up_privileges = missing\n"
            "from txmux.cli import main\n"
            f"raise SystemExit(main(['explain', '--text', 'x', {str(rules)!r}]))\n"
        )
        done = run(sys.executable, "-c", code)
        self.assertEqual(done.returncode, 0, done.stderr)


def captured(data: bytes) -> bytes:
    """Write a capture of raw IPv4 with one segment of a client."""
    tcp = struct.pack("!HHIIBBHHH", 40000, 443, 1, 0, 5 << 4, 0x18, 1024, 0, 0) + data
    ends = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, *ends) + tcp
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    return head + struct.pack("<IIII", 0, 0, len(ip), len(ip)) + ip
