import contextlib
import os
import pty
import signal
import socket
import sys
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.processes import get
from tests.interop.screen import Screen
from tests.support.kit import PATIENCE, InteropTestCase, Service, require_program
from txmux.features.top.terminal import Terminal, read_keys

_RULES = """\
[listen public]
endpoint = 127.0.0.1:0
[route ssh]
match = ssh
backend = pool
[backend pool]
server = 127.0.0.1:{port}
fallback = 127.0.0.1:{port}
"""


@pytest.mark.whole
class TopTests(InteropTestCase):
    def setUp(self) -> None:
        super().setUp()
        require_program("tmux")
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(PATIENCE)
        self.addCleanup(self.server.close)
        self.admin = self.folder / "admin.sock"
        self.mux = self.start()

    def start(self) -> Service:
        rules = _RULES.format(port=self.server.getsockname()[1])
        settings = f"drain_timeout = 0s\nadmin = unix:{self.admin}"
        return self.own(Service(self.folder, rules, settings))

    def relayed(self) -> socket.socket:
        client = self.mux.connect()
        self.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.sendall(b"SSH-2.0-a\r\n")
        server, _ = self.server.accept()
        self.addCleanup(server.close)
        return client

    def test_keys_change_the_service_which_is_found_again_once_it_is_lost(self) -> None:
        client, screen = self.relayed(), self.own(Screen(self.folder))
        screen.run(sys.executable, "-m", "txmux", "top", "--admin", self.admin)
        shown = screen.wait_for(r"^\[1\] connections  1")
        self.assertEqual(len(shown.splitlines()), 24)
        server = rf"127\.0\.0\.1:{self.server.getsockname()[1]}"
        self.assertRegex(shown, rf"(?m)^127\.0\.0\.1:\d+ .* ssh +{server} +relaying ")
        screen.type("3d")
        screen.wait_for(rf"^drain: backend pool, {server}, its last server that gets new")
        screen.type("y")
        screen.wait_for(rf"^backend pool: {server} is drained; no server of pool gets new")
        self.assertEqual(get(self.admin, "/api/backends")[0]["servers"][0]["state"], "drain")
        screen.type("1e")
        screen.wait_for(r"^> +ssh +ssh +match$")
        screen.press("Escape")
        screen.wait_for(r"^\[1\] connections  1")
        screen.type("xy")
        screen.wait_for(r"^1 connection ended")
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(client.recv(1), b"")
        self.assertEqual(self.mux.take_one()["reason"], "killed")
        screen.wait_for(r"^\[1\] connections  0")
        self.mux.stop()
        screen.wait_for(r"^trying again: (?:there is no socket|no service listens at) ")
        screen.resize(60, 16)
        screen.wait_for(r"^s sort  / filter  e explain  x end  b ban  d drain  u ready…$")
        self.mux = self.start()
        self.relayed()
        shown = screen.wait_for(r"^\[1\] connections  1")
        self.assertNotIn("trying again", shown)
        self.assertEqual(len(shown.splitlines()), 16)
        screen.press("C-c")
        screen.wait_for(r"exit=0$")


_PIECES = st.sampled_from(
    [b"\x1b[A", b"\x1bOB", b"\x1b[6~", b"\x1b[", b"\x1b", b"q", b"\xc3\xa9", b"\xe2\x82\xac", b"\xff"]
)  # fmt: skip


class TerminalTests(SynchronousTestCase):
    def test_keys_and_incomplete_sequences_which_wait_for_the_rest(self) -> None:
        data = b"aA\r\n\t\x7f\x1b[A\x1bOB\x1b[C\x1b[5~\x1b[1;5P\x1b[Z\x15\x00\xc3\xa9\xe2\x82\xac"
        keys = ["a", "A", "enter", "enter", "tab", "backspace", "up", "down", "right", "page-up"]
        self.assertEqual(read_keys(data), ([*keys, "backtab", "clear", "é", "€"], b""))
        self.assertEqual(read_keys(b"a\x1b"), (["a"], b"\x1b"))
        self.assertEqual(read_keys(b"\x1b[1"), ([], b"\x1b[1"))
        self.assertEqual(read_keys(b"\xe2\x82"), ([], b"\xe2\x82"))
        self.assertEqual(read_keys(b"\x1b", is_last=True), (["escape"], b""))
        self.assertEqual(read_keys(b"\x1bq"), (["escape", "q"], b""))

    @given(st.one_of(st.binary(), st.lists(_PIECES).map(b"".join)), st.data())
    def test_any_parts_give_the_same_keys(self, data: bytes, draw: st.DataObject) -> None:
        whole, left = read_keys(data)
        self.assertLess(len(left), 32)
        cut = draw.draw(st.integers(0, len(data)))
        first, rest = read_keys(data[:cut])
        second, last = read_keys(rest + data[cut:])
        self.assertEqual((first + second, last), (whole, left))
        self.assertTrue(all(key.isprintable() for key in whole))
        self.assertEqual(read_keys(left, is_last=True)[1], b"")

    def test_terminal_and_signals_are_restored_after_an_exception(self) -> None:
        controller, keyboard = pty.openpty()
        self.addCleanup(os.close, controller)
        self.addCleanup(os.close, keyboard)
        before = termios.tcgetattr(keyboard)
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGTSTP)]
        terminal = Terminal(keyboard)
        with self.assertRaises(ZeroDivisionError), terminal.shown():
            self.assertNotEqual(termios.tcgetattr(keyboard), before)
            raise ZeroDivisionError
        self.assertEqual(termios.tcgetattr(keyboard), before)
        found = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGTSTP)]
        self.assertEqual(found, handlers)
