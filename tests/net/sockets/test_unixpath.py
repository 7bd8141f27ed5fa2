"""The files of listening UNIX sockets: only those of the service itself are removed."""

import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.net.sockets.unixpath import credentials_of, open_listening, remove_socket

_ANOTHER = """
import os, socket, sys
os.unlink(sys.argv[1])
with socket.socket(socket.AF_UNIX, int(sys.argv[2])) as listening:
    listening.bind(sys.argv[1])
    listening.listen()
    print("listens", flush=True)
    sys.stdin.read()
"""


class RemoveTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = make_folder(self) / "x.sock"

    def opened(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        listening = open_listening(self.path, 0o600, 5, kind)
        self.addCleanup(listening.close)
        return listening

    def another(self, kind: int = socket.SOCK_STREAM) -> None:
        """Have another program listen at the path."""
        words = [sys.executable, "-ISc", _ANOTHER, str(self.path), str(int(kind))]
        with_pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        program = subprocess.Popen(words, **with_pipes)  # type: ignore[call-overload]
        self.addCleanup(program.communicate)
        self.assertEqual(program.stdout.readline(), b"listens\n")

    def test_own_socket(self) -> None:
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            with self.opened(kind) as listening:
                remove_socket(self.path, listening)
                self.assertFalse(self.path.exists())
                remove_socket(self.path, listening)

    def test_what_another_program_has_bound_since_stays(self) -> None:
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            self.path.unlink(missing_ok=True)
            listening = self.opened()
            self.another(kind)
            remove_socket(self.path, listening)
            with socket.socket(socket.AF_UNIX, kind) as client:
                client.connect(str(self.path))

    def test_other_files_stay(self) -> None:
        listening = self.opened()
        self.path.unlink()
        with socket.socket(socket.AF_UNIX) as unheard:
            unheard.bind(str(self.path))
        remove_socket(self.path, listening)
        self.assertTrue(self.path.is_socket())
        self.path.unlink()
        self.path.write_text("x")
        remove_socket(self.path, listening)
        self.path.unlink()
        other = Path(f"{self.path}.other")
        with open_listening(other, 0o600, 5):
            self.path.symlink_to(other)
            remove_socket(self.path, listening)
        self.assertTrue(self.path.is_symlink() and other.is_socket())

    def test_full_queue(self) -> None:
        """Nobody can be asked, so the file stays; it is replaced once nobody listens."""
        with self.opened() as listening:
            listening.listen(0)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self.path))
                remove_socket(self.path, listening)
                self.assertTrue(self.path.is_socket())
        self.opened()

    def test_credentials_are_those_of_the_listener(self) -> None:
        with self.opened() as listening, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
            self.assertEqual(credentials_of(client), credentials_of(listening))
