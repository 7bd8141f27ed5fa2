"""Two signals to stop that come before the first has been acted on."""

import contextlib
import signal
import subprocess

import pytest

from tests.interop.children import InteropTestCase
from tests.support.echo import EchoServer
from tests.support.services import Service

pytestmark = pytest.mark.by_turns


class SameMomentTests(InteropTestCase):
    def test_both_mean_at_once(self) -> None:
        for workers in (1, 2):
            echo = self.own(EchoServer())
            rules = f"[listen public]\nendpoint = 127.0.0.1:0\ndefault = 127.0.0.1:{echo.port}\n"
            mux = Service(self.folder, rules, f"workers = {workers}\ndrain_timeout = 1h")
            self.addCleanup(mux.child.end)
            with mux.connect() as client:
                client.sendall(b"x")
                self.assertEqual(client.recv(1), b"x")
                for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
                    mux.child.process.send_signal(number)
                self.assertRaises(ConnectionResetError, client.recv, 1)
            # Whichever comes first: two threads may take them.
            self.assertIn(mux.child.wait(), {-signal.SIGINT, -signal.SIGTERM})
            self.assertNotIn("Traceback", mux.child.output)
            self.assertEqual(mux.take_one()["reason"], "drained")

    def test_many_are_no_error(self) -> None:
        mux = Service(self.folder, "")
        self.addCleanup(mux.child.end)
        mux.terminate()
        ended = False
        while not ended:
            # Without a pause it would do nothing but handle signals.
            with contextlib.suppress(subprocess.TimeoutExpired):
                mux.child.process.wait(0.01)
                ended = True
            mux.terminate()
        mux.assert_stopped()
