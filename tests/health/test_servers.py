"""Servers that fail without a check to say so: what breaks is real, and every view is read."""

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.admin.processes import ask, text_of
from tests.interop.children import PATIENCE, eventually
from tests.processes.running import RULES, WorkersTestCase
from tests.support.ports import free_port, stop_listening
from tests.support.services import Service
from txmux.cli import main

pytestmark = pytest.mark.by_turns(each=True)

_EXITS = {"critical": 2, "warning": 1, "note": 0, "": 0}


@attrs.frozen
class Views:
    mux: Service
    admin: Path

    def api(self, path: str = "status") -> Any:
        return ask(self.admin, "GET", f"/api/{path}")[1]

    def attention(self, what: str) -> Mapping[str, Any] | None:
        items = self.api()["attention"]
        return next((item for item in items if item["what"] == what), None)

    def command(self, *words: str) -> tuple[int, str]:
        out = StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            code = main([*words, "--admin", str(self.admin)])
        return code, out.getvalue()

    def is_ready(self) -> bool:
        return ask(self.admin, "GET", "/readyz")[0] == 200

    def metric(self, sample: str) -> float | None:
        for line in text_of(self.admin, "/metrics").splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return None

    def show(self, what: str, level: str, words: str, *, log: str = "", ready: bool = True) -> None:
        """Wait until each view shows an item with these words; its log line has those of `log`. Print how long each took (``-s``)."""
        begun = time.monotonic()
        shown: dict[str, float] = {}
        sample = f'txmux_attention{{level="{level}",what="{what}"}}'

        def item() -> bool:
            found = self.attention(what)
            return found is not None and found["level"] == level and words in json.dumps(found)

        views: Mapping[str, Callable[[], bool]] = {
            "API": item,
            "status": lambda: words in _flat(self.command("status")[1]),
            "exit status": lambda: self.command("status", "--check")[0] >= _EXITS[level],
            "top": lambda: words in _flat(self.command("top", "--once")[1]),
            "page": lambda: words in text_of(self.admin, "/"),
            "metric": lambda: (self.metric(sample) or 0) >= 1,
            "readyz": lambda: self.is_ready() == ready,
            "log": lambda: (log or words) in self.mux.child.output,
        }

        def missing() -> list[str]:
            for name in [name for name in views if name not in shown]:
                if views[name]():
                    shown[name] = time.monotonic() - begun
            return [name for name in views if name not in shown]

        try:
            eventually(lambda: not missing(), f"all views show {words!r}", PATIENCE)
        except AssertionError as problem:
            raise AssertionError(
                f"{problem}; not: {missing()}\n{self.api()['attention']}\n{self.command('status')[1]}"
            ) from None
        took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in shown.items())
        print(f"{what}, {level}: {took}")  # noqa: T201 - seen by -s

    def clear(self, what: str) -> None:
        eventually(lambda: self.attention(what) is None, f"{what} needs no attention any more")
        eventually(
            lambda: self.metric(f'txmux_attention{{level="critical",what="{what}"}}') == 0,
            f"the metric of {what} is 0",
        )


def _flat(text: str) -> str:
    return " ".join(text.split())


def pool(*ports: int, more: str = "") -> str:
    servers = "".join(f"\n    127.0.0.1:{port}" for port in ports)
    return f"{RULES}[route all]\nmatch = any\nbackend = web\n[backend web]\nserver = {servers}\n{more}\n"


class ServerTests(WorkersTestCase):
    def views(self, rules: str, settings: str = "workers = 2") -> Views:
        admin = self.folder / "admin.sock"
        return Views(
            self.start(rules, f"admin = unix:{admin}\ndrain_timeout = 0s\n{settings}"), admin
        )

    def ask_until(self, views: Views, what: str) -> None:
        sources = itertools.cycle(("127.0.0.1", "127.0.0.2", "127.0.0.3"))

        def is_shown() -> bool:
            with contextlib.suppress(OSError), views.mux.connect(next(sources)) as client:
                client.settimeout(0.5)
                client.sendall(b"x")
                client.recv(1)
            return views.attention(what) is not None

        eventually(is_shown, f"{what} needs attention")

    def server_state(self, views: Views, number: int = 0) -> str:
        return str(views.api("backends")[0]["servers"][number]["state"])

    def test_dead_lone_server_without_check(self) -> None:
        port = free_port()
        views = self.views(pool(port))
        self.ask_until(views, "backend")
        views.show("backend", "critical", "connection refused", log="is failing", ready=False)
        self.assertEqual(self.server_state(views), "failing")
        state = (
            f'txmux_backend_server_state{{backend="web",server="127.0.0.1:{port}",state="failing"}}'
        )
        self.assertEqual(views.metric(state), 1)
        # It recovers without a client.
        self.addCleanup(stop_listening, socket.create_server(("127.0.0.1", port)))
        views.clear("backend")
        eventually(views.is_ready, "the service is ready")
        self.assertEqual(self.server_state(views), "up")
        # Each trouble has its own line, and a start is none.
        self.assertNotIn("needs attention", views.mux.child.output)

    def test_server_that_resets_every_client(self) -> None:
        listening = self.backend()
        threading.Thread(target=_reset_all, args=[listening], daemon=True).start()
        views = self.views(pool(listening.getsockname()[1]))
        self.ask_until(views, "backend")
        views.show("backend", "critical", "reset", log="is failing", ready=False)

    @pytest.mark.whole  # it is silent for 15 s; `ObservedTest` moves the clock
    def test_server_that_accepts_and_never_answers(self) -> None:
        listening = self.backend()
        views = self.views(pool(listening.getsockname()[1], more="check = tcp interval=1s"))
        for client in [views.mux.connect(f"127.0.0.{1 + number % 3}") for number in range(6)]:
            self.addCleanup(client.close)
            client.sendall(b"x")
        eventually(lambda: views.attention("backend") is not None, "the backend needs attention")
        views.show("backend", "critical", "silent", log="is silent", ready=False)
        self.assertEqual(self.server_state(views), "silent")
        self.accept_from(listening, b"x").sendall(b"y")
        views.clear("backend")

    def test_one_of_two_dead_by_its_check(self) -> None:
        listening = self.backend()
        dead = free_port()
        more = "check = tcp interval=1s fall=1"
        views = self.views(pool(dead, listening.getsockname()[1], more=more))
        views.show("backend", "warning", str(dead), log="is down")

    def test_drained_server_is_no_failure(self) -> None:
        listening = self.backend()
        port = listening.getsockname()[1]
        views = self.views(pool(port, more="check = tcp interval=1s"))
        code, said = views.command("drain", "web")
        self.assertEqual(code, 0, said)
        up = f'txmux_backend_server_up{{backend="web",server="127.0.0.1:{port}"}}'
        self.assertEqual(views.metric(up), 1)
        state = (
            f'txmux_backend_server_state{{backend="web",server="127.0.0.1:{port}",state="drain"}}'
        )
        self.assertEqual(views.metric(state), 1)


def _reset_all(listening: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listening.accept()
            client.recv(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
