"""Servers that fail without a check to say so: what breaks is real, and every view is read."""

import contextlib
import itertools
import json
import socket
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.admin.processes import ask, text_of
from tests.support.kit import RULES, Service, WorkersTestCase, eventually
from tests.support.ports import free_port, stop_listening
from txmux.cli import main

pytestmark = pytest.mark.by_turns(each=True)


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

    def show(self, what: str, level: str, words: str, *, log: str, ready: bool) -> None:
        """Wait until each view shows an item with these words; its log line has those of `log`."""
        sample = f'txmux_attention{{level="{level}",what="{what}"}}'

        def item() -> bool:
            found = self.attention(what)
            return found is not None and found["level"] == level and words in json.dumps(found)

        views: Mapping[str, Callable[[], bool]] = {
            "API": item,
            "status": lambda: words in _flat(self.command("status")[1]),
            "exit status": lambda: self.command("status", "--check")[0] == 2,
            "top": lambda: words in _flat(self.command("top", "--once")[1]),
            "page": lambda: words in text_of(self.admin, "/"),
            "metric": lambda: (self.metric(sample) or 0) >= 1,
            "readyz": lambda: self.is_ready() == ready,
            "log": lambda: log in self.mux.child.output,
        }
        for name, is_shown in views.items():
            eventually(is_shown, f"{name} shows {words!r}")

    def clear(self, what: str) -> None:
        eventually(lambda: self.attention(what) is None, f"{what} needs no attention any more")
        eventually(
            lambda: self.metric(f'txmux_attention{{level="critical",what="{what}"}}') == 0,
            f"the metric of {what} is 0",
        )


def _flat(text: str) -> str:
    return " ".join(text.split())


class ServerTests(WorkersTestCase):
    def test_dead_lone_server_without_check(self) -> None:
        port, admin = free_port(), self.folder / "admin.sock"
        rules = f"{RULES}[route all]\nmatch = any\nbackend = web\n[backend web]\nserver = 127.0.0.1:{port}\n"
        settings = f"admin = unix:{admin}\ndrain_timeout = 0s\nworkers = 2"
        views = Views(self.upgrading(rules, settings), admin)
        sources = itertools.cycle(("127.0.0.1", "127.0.0.2", "127.0.0.3"))

        def is_shown() -> bool:
            with contextlib.suppress(OSError), views.mux.connect(next(sources)) as client:
                client.settimeout(0.5)
                client.sendall(b"x")
                client.recv(1)
            return views.attention("backend") is not None

        eventually(is_shown, "the backend needs attention")
        views.show("backend", "critical", "connection refused", log="is failing", ready=False)
        self.assertEqual(views.api("backends")[0]["servers"][0]["state"], "failing")
        labels = f'backend="web",server="127.0.0.1:{port}",state="failing"'
        state = f"txmux_backend_server_state{{{labels}}}"
        self.assertEqual(views.metric(state), 1)
        # It recovers without a client.
        self.addCleanup(stop_listening, socket.create_server(("127.0.0.1", port)))
        views.clear("backend")
        eventually(views.is_ready, "the service is ready")
        self.assertEqual(views.api("backends")[0]["servers"][0]["state"], "up")
        # Each trouble has its own line, and a start is none.
        self.assertNotIn("needs attention", views.mux.child.output)
