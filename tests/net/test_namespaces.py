"""Users without a number in the user namespace of this process are nobody."""

import os
import sys
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.processes.test_privileges import python_for_everybody
from tests.support.kit import Service, leave_unmeasured, make_folder, run
from txmux.net import namespaces
from txmux.net.namespaces import UNKNOWN

_RULES = "[listen public]\nendpoint = 127.0.0.1:0\n"
_ASK = """
import os, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
from pathlib import Path
from tests.admin.processes import ask
print(ask(Path(sys.argv[1]), "GET", "/api/status")[0])
"""
_PEER = """
import socket
from txmux.adopt.receiving import NotGivenError, receive
from txmux.net.sockets.unixpath import credentials_of
print(credentials_of(socket.socketpair()[0])[1:])
try:
    receive(socket.socketpair()[0])
except NotGivenError as refused:
    print(refused)
"""


class OverflowTests(SynchronousTestCase):
    def overflow(self, ranges: str) -> int | None:
        proc = make_folder(self)
        for folder in ("self", "sys/kernel"):
            (proc / folder).mkdir(parents=True)
        (proc / "self/uid_map").write_text(ranges)
        (proc / "sys/kernel/overflowuid").write_text("4711\n")
        return namespaces.overflow_id("uid", proc)

    def test_maps(self) -> None:
        """It stands for somebody else only while a number is not mapped."""
        self.assertIsNone(self.overflow("         0          0 4294967295\n"))
        self.assertIsNone(self.overflow("0 0 4711\n4711 4711 4294962584\n"))
        for ranges in ("", "0 1000 1\n1 100000 65536\n", "0 0 4294967294\n"):
            self.assertEqual(self.overflow(ranges), 4711)

    def test_without_numbers(self) -> None:
        """As in a unit with ProcSubset=pid, or without /proc."""
        proc = make_folder(self)
        (proc / "self").mkdir()
        for ranges, expected in (("0 0 4294967295", None), ("0 1000 1", 65534)):
            (proc / "self/uid_map").write_text(ranges)
            self.assertEqual(namespaces.overflow_id("uid", proc), expected)
        expected = 65534 if sys.platform == "linux" else None
        self.assertEqual(namespaces.overflow_id("uid", Path("/nonexistent")), expected)

    def test_other_numbers(self) -> None:
        self.patch(namespaces, "overflow_ids", lambda: (4711, 4712))
        self.assertEqual([*map(namespaces.known_user, (0, 4711, 4712))], [0, UNKNOWN, 4712])
        self.assertEqual([*map(namespaces.known_group, (0, 4711, 4712))], [0, 4711, UNKNOWN])


class NamespaceTests(SynchronousTestCase):
    """A service that is 65534 of a user namespace with no other number."""

    before = ("unshare", "--user", "--map-user=65534", "--map-group=65534")

    def setUp(self) -> None:
        if os.geteuid() != 0 or run(*self.before, "true").returncode:
            raise SkipTest("needs root, and a user namespace")
        leave_unmeasured(self)

    def test_admin(self) -> None:
        """With `admin_users`, others than these may do nothing, whoever can open the socket."""
        folder = make_folder(self)
        folder.chmod(0o755)
        admin = folder / "admin.sock"
        for users in ("root:all", "65534:all, @65534:all"):
            settings = f"admin = unix:{admin}:mode=666\nadmin_users = {users}"
            mux = Service(folder, _RULES, settings, before=self.before, program="run")
            self.addCleanup(mux.kill_all)
            done = run(*python_for_everybody(), sys.executable, "-c", _ASK, admin, "4711")
            self.assertEqual(done.stdout, b"403\n", done.stderr)
            mux.stop()

    def test_peers(self) -> None:
        """Nor is such a process a sender of sockets, or a server that they are handed to."""
        done = run(*self.before, sys.executable, "-c", _PEER)
        self.assertEqual(done.stdout.splitlines()[0], b"(-1, -1)", done.stderr)
        self.assertIn(
            b"of a user that this user namespace does not know may not send sockets here",
            done.stdout,
        )
