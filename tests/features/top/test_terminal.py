import contextlib
import os
import pty
import signal
import socket
import sys
import termios

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.processes import get
from tests.interop.children import PATIENCE, InteropTestCase
from tests.interop.screen import Screen
from tests.programs import require_program
from tests.support.services import Service
from txmux.features.top.terminal import Terminal

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
        return self.own(
            Service(self.folder, rules, f"drain_timeout = 0s\nadmin = unix:{self.admin}")
        )

    def relayed(self) -> socket.socket:
        client = self.mux.connect()
        self.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.sendall(b"SSH-2.0-a\r\n")
        server, _ = self.server.accept()
        self.addCleanup(server.close)
        return client

    def top(self, screen: Screen) -> None:
        screen.run(sys.executable, "-m", "txmux", "top", "--admin", self.admin)

    def set_weight_and_ban(self, screen: Screen, port: int) -> None:
        screen.type("3W7")
        screen.press("Enter")
        screen.wait_for(rf"^backend pool: 127\.0\.0\.1:{port} .*weight 7")
        screen.type("4b1h scans")
        screen.wait_for(r"^ban 127\.0\.0\.1 for, .*: 1h scans_")
        screen.press("Enter")
        screen.wait_for(r"^127\.0\.0\.1 is banned")
        self.assertEqual([ban["reason"] for ban in get(self.admin, "/api/bans")], ["scans"])

    def test_drain_explain_end_and_filter_by_keys(self) -> None:
        clients = [self.relayed() for _ in range(3)]
        screen = self.own(Screen(self.folder))
        self.top(screen)
        shown = screen.wait_for(r"^\[1\] connections  3")
        self.assertEqual(len(shown.splitlines()), 24)
        port = self.server.getsockname()[1]
        self.assertRegex(shown, rf"(?m)^127\.0\.0\.1:\d+ .* ssh +127\.0\.0\.1:{port} +relaying ")
        self.assertRegex(shown, rf"(?m)^pool +127\.0\.0\.1:{port} +not checked +3 ")
        self.assertRegex(shown, r"(?m)^ssh +pool +3 ")

        screen.type("3d")
        asked = rf"drain: backend pool, 127\.0\.0\.1:{port}, its last server that gets new"
        screen.wait_for(rf"^{asked}\s+connections\?\s+y/n$")
        screen.type("y")
        screen.wait_for(
            rf"^backend pool: 127\.0\.0\.1:{port} is drained; no server of pool gets new clients now$"
        )
        screen.wait_for(rf"^pool +127\.0\.0\.1:{port} +drained ")
        self.assertEqual(get(self.admin, "/api/backends")[0]["servers"][0]["state"], "drain")
        screen.type("u")
        screen.wait_for(rf"^pool +127\.0\.0\.1:{port} +not checked ")

        mine = f"127.0.0.1:{clients[1].getsockname()[1]}"
        screen.type(f"/client={mine.partition(':')[0]}")
        screen.press("Enter")
        screen.wait_for(r"^\[1\] connections  3, only client=127\.0\.0\.1")
        screen.type("s")
        screen.wait_for(r"^client↑")
        ordered = sorted(clients, key=lambda client: str(client.getsockname()[1]))
        screen.press("Down")
        screen.type("e")
        screen.wait_for(rf"^connection \S+ from 127\.0\.0\.1:{ordered[1].getsockname()[1]} on ")
        screen.wait_for(r"^> +ssh +ssh +match$")
        screen.press("Escape")
        screen.wait_for(r"^\[1\] connections  3")
        screen.type("xn")
        screen.wait_for(r"^nothing was changed")
        screen.type("x")
        screen.wait_for(
            rf"^end connection \S+ from 127\.0\.0\.1:{ordered[1].getsockname()[1]}\? y/n"
        )
        screen.type("y")
        screen.wait_for(r"^1 connection ended")
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(ordered[1].recv(1), b"")
        self.assertEqual(self.mux.take_one()["reason"], "killed")
        screen.wait_for(r"^\[1\] connections  2")
        self.assertRegex(screen.wait_for(r"^\[4\] recent ends  1"), r"(?m) killed ")
        self.set_weight_and_ban(screen, port)
        screen.type("q")
        screen.wait_for(r"exit=0$")
        self.assertNotIn("connections:", screen.text)

    def test_lost_service_is_found_again_after_a_resize(self) -> None:
        screen = self.own(Screen(self.folder, 100, 30))
        self.top(screen)
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

    def test_terminal_is_restored_at_suspend_and_sigterm(self) -> None:
        screen = self.own(Screen(self.folder))
        self.top(screen)
        screen.wait_for(r"^\[1\] connections  0")
        screen.press("C-z")
        self.assertNotIn("[1] connections", screen.wait_for(r"exit=\d+$"))
        self.assert_is_given_back(screen)
        screen.type("fg\n")
        screen.wait_for(r"^\[1\] connections  0")
        screen.type("h")
        screen.wait_for(r"^ +q, Control-C +quit")
        os.kill(screen.pid, signal.SIGTERM)
        screen.wait_for(r"^Terminated")
        self.assert_is_given_back(screen)

    def assert_is_given_back(self, screen: Screen) -> None:
        screen.type("clear; stty -a | tr ' ;' '\\n\\n' | grep -Ex -e '-?(icanon|echo)'\n")
        self.assertNotIn("-", screen.wait_for(r"\A-?icanon\n-?echo\n\$ *$"))


class RestoreTests(SynchronousTestCase):
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

    def test_closed_terminal_is_the_end(self) -> None:
        controller, keyboard = pty.openpty()
        self.addCleanup(os.close, keyboard)
        terminal = Terminal(keyboard)
        with terminal.shown():
            os.write(controller, b"a")
            self.assertEqual(terminal.wait(PATIENCE), b"a")
            self.assertEqual(terminal.wait(0), b"")
            os.close(controller)
            self.assertRaises(OSError, terminal.wait, PATIENCE)
