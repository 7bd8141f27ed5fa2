"""What breaks a service is seen in its status, by ``txmux status --check``, ``top``, the page, ``/readyz`` and the metrics, and in the log."""

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import pytest

from tests.admin.processes import ask, text_of
from tests.support.echo import EchoServer
from tests.support.kit import RULES, Service, WorkersTestCase, customize, eventually, halted, run
from txmux.telemetry.attention import OF_FEW

pytestmark = pytest.mark.by_turns(each=True)
_FEW = ("sh", "-c", 'ulimit -n 96; exec "$@"', "sh")
_ODD = """
import itertools
from txmux.control import worker_answers
measure, asked = worker_answers.measure, itertools.count()
async def be_odd(serving, *, everything):
    found = await measure(serving, everything=everything)
    return {**found, "flooded": 7} if everything and next(asked) < 40 else found
worker_answers.measure = be_odd
"""
"""Workers answer forty times what their supervisor does not take."""
_CODES = {"critical": 2, "warning": 1, "note": 0}


class AttentionTest(WorkersTestCase):
    def begin(self, rules: str = RULES, settings: str = "", before: Sequence[str] = ()) -> Service:
        self.mux = self.upgrading(rules, settings, before, admin=True)
        return self.mux

    def seen(self, what: str, level: str, *, shown: bool = False) -> dict[str, Any]:
        """Wait for the one item of a topic, in the metrics, too, and with `shown` in what people see."""
        eventually(lambda: level in [it["level"] for it in self.mux.attention(what)], "it is seen")
        (item,) = self.mux.attention(what)
        self.assertLess(item["since"], time.time())
        self.assertEqual(self.counted(what, level), 1)
        if shown:
            self.assertIn(escape(item["text"][1:]), text_of(self.mux.admin, "/"))
            self.assertIn(" ".join(item["text"].split()), self.shown("top", "--once"))
        if shown or what == "workers":  # the answer of which is not complete
            code, line = self.check()
            self.assertEqual(code, _CODES[level])
            self.assertEqual(line.partition(":")[0], level.upper())
        return item

    def over(self, what: str, *, shown: bool = False) -> None:  # type: ignore[override]
        eventually(lambda: not self.mux.attention(what), f"{what} is over")
        self.assertEqual([self.counted(what, level) for level in _CODES], [0, 0, 0])
        if shown:
            self.assertEqual(self.check(), (0, "OK: nothing needs attention"))

    def counted(self, what: str, level: str) -> float:
        labels = f'level="{level}",what="{what}"'
        text = text_of(self.mux.admin, "/metrics")
        return sum(map(float, re.findall(rf"(?m)^txmux_attention{{{labels}}} (\S+)$", text)))

    def check(self) -> tuple[int, str]:
        status, said = self.command("status", "--check")
        return status, said.partition(" | ")[0]

    def shown(self, *words: str) -> str:
        return " ".join(self.command(*words)[1].split())

    def command(self, *words: str) -> tuple[int, str]:
        done = run(sys.executable, "-m", "txmux", *words, "--admin", f"unix:{self.mux.admin}")
        self.assertRegex(done.stderr, rb"\A(warning: the answer is not complete: .*\n)?\Z")
        return done.returncode, done.stdout.decode()

    def ready(self) -> tuple[int, list[str]]:
        status, answer = ask(self.mux.admin, "GET", "/readyz")
        return status, answer["missing"]

    def test_descriptors_run_out(self) -> None:
        port = self.own(EchoServer()).port
        mux = self.begin(f"{RULES}default = 127.0.0.1:{port}\n", before=_FEW)
        # One source makes nothing critical, whatever it takes from others.
        for few, level, status in ((OF_FEW, "warning", 200), ("", "critical", 503)):
            sources = ["" if few else f"127.0.9.{number}" for number in range(60)]
            clients = [mux.connect(source) for source in sources]
            for client in clients:
                client.sendall(b"x")
            item = self.seen("accept", level, shown=True)
            why = f"too many open files{few}"
            self.assertEqual((item["text"], item["cause"]), ("listener public: cannot accept", why))
            line = f"[listen public]: cannot accept: {why}"
            self.assertEqual(self.ready(), (status, [line]))
            (listener,) = self.mux.api("status")["listeners"]
            self.assertFalse(listener["accepting"])
            self.assertEqual(listener["why"], f"cannot accept: {why}")
            for client in clients:
                client.close()
            self.over("accept", shown=True)
            self.assertEqual(self.ready(), (200, []))
            mux.child.wait_for(f"port {mux.port} cannot accept")
            mux.child.wait_for("no client is waiting to be accepted any longer")

    def test_queue_overflows(self) -> None:
        mux = self.begin("[listen public]\nendpoint = tcp:0:interface=127.0.0.1:backlog=2\n")
        with halted(mux.workers):
            for _ in range(8):
                client = self.enterContext(socket.socket())
                client.setblocking(False)  # noqa: FBT003
                client.connect_ex(("127.0.0.1", mux.port))
            mux.child.wait_for(r"needs attention: listener public: the queue of \S+ has overflowed")
        item = self.seen("accept", "warning")
        self.assertRegex(item["cause"], r"^\d+ attempts to connect dropped within a minute$")
        self.assertEqual(self.ready(), (200, []))

    def test_no_source_port_is_left(self) -> None:
        backend = self.backend()
        port = backend.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            own = reserved.getsockname()[1]
        keys = f"server = 127.0.0.1:{port}\nsource = 127.0.0.1:{own}-{own}\n"
        mux = self.begin(f"{RULES}default = web\n[backend web]\n{keys}")
        first, server = self.relayed(mux, backend)
        for _ in range(3):
            client = self.client(mux)
            client.sendall(b"x")
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(client.recv(1), b"")
        item = self.seen("ports", "warning")
        text = f"backend web: no source port is left towards 127.0.0.1:{port}"
        cause = "all ports of all addresses in source are in use towards this server; one or two sources have most connections: 3 connections failed"
        self.assertEqual((item["text"], item["cause"]), (text, cause))
        self.assertEqual(mux.output.count("cannot connect to"), 1)
        first.close()
        server.close()

    def test_full_disk_and_killed_workers_before_and_after_an_upgrade(self) -> None:
        mux = self.begin()
        mux.reload(("access_log = .*", "access_log = /dev/full"))
        self.be_closed(mux)
        item = self.seen("log", "warning")
        lost = ("access log /dev/full: 1 line lost", "No space left on device")
        self.assertEqual((item["text"], item["cause"]), lost)
        mux.replace()
        (after,) = self.mux.attention("log")
        self.assertEqual((after["text"], after["cause"], after["since"]), (*lost, item["since"]))
        self.be_closed(mux)
        eventually(lambda: "2 lines lost" in mux.attention("log")[0]["text"], "they are added")
        # A worker that is killed while it retires is named, too, be it of the process before an upgrade, which does not forget those before.
        eventually(lambda: self.retiring() == [], "the old worker has ended")
        (worker,) = mux.workers
        with self.kept_connection():
            os.kill(worker, signal.SIGTERM)
            eventually(lambda: self.retiring() == [worker], "another one serves")
            self.end(worker, "was killed by signal 9 (SIGKILL), 1 connection lost")
        with self.kept_connection():
            (worker,) = mux.replace()
            mux.child.wait_for(f"upgraded: process {mux.pid} ")
            self.assertIn("(SIGKILL), 1 connection lost", str(self.mux.attention("workers")))
            told = "ended, 2 connections lost in all; 1 other before"
            self.end(worker, "ended, 1 connection lost", told)

    def test_worker_that_does_not_answer(self) -> None:
        mux = self.begin(settings="workers = 2")
        one, _ = mux.workers
        with halted([one]):
            item = self.seen("workers", "warning")
            self.assertRegex(item["text"], r"^worker \d does not answer$")
            self.assertIn(f"otherwise end it: kill -KILL {one}", item["do"])
        # If that took ten seconds, it was killed, which is another item.
        eventually(
            lambda: item["text"] not in [row["text"] for row in self.mux.attention("workers")],
            "over",
        )
        with halted(mux.workers):
            self.seen("workers", "critical")
            mux.child.wait_for("needs attention: no worker (answers|serves)")
            (listener,) = self.mux.api("status")["listeners"]
            self.assertFalse(listener["accepting"])
            status, (line,) = self.ready()
            # After ten seconds they are killed, and others start.
            self.assertIn((status, line), [(503, "no worker answers"), (503, "no worker serves")])
        eventually(lambda: self.counted("workers", "critical") == 0, "they answer again")

    def test_answer_that_cannot_be_read(self) -> None:
        """It is not taken for the answer that nothing needs attention."""
        customize(self, _ODD)
        self.begin()
        item = self.seen("workers", "warning")
        self.assertEqual(
            (item["text"], item["cause"]),
            ("what worker 1 measures is missing", "count: 'flooded' is 7"),
        )
        self.over("workers")

    @contextlib.contextmanager
    def kept_connection(self) -> Iterator[None]:
        client = self.client(self.mux)
        eventually(lambda: self.mux.api("connections"), "it is accepted")
        yield
        client.close()

    def retiring(self) -> list[int]:
        return [row["pid"] for row in self.mux.api("status")["workers"] if row["retiring"]]

    def end(self, worker: int, how: str, told: str = "") -> None:
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: (told or how) in str(self.mux.attention("workers")), "it is seen")
        self.mux.child.wait_for(rf"worker \d {re.escape(how)}")
