"""Files that root opens for somebody who may write to the folders that they are in."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.processes.test_privileges import require_root
from tests.support.folders import make_folder
from tests.support.hostile import spoil
from tests.support.kit import Service, change_constants, eventually, leave_unmeasured, pretend_user
from tests.support.leaks import added_since, look
from txmux import files
from txmux.access.network_sources import WatchedFile
from txmux.files import open_log, open_safely, read_bytes, read_secret, replace_file
from txmux.processes.opener import Opener, OpenerError
from txmux.processes.supervisor.pidfile import write_pid

pytestmark = pytest.mark.whole

_NOBODY = 65534
_RULES = "[listen public]\nendpoint = 127.0.0.1:0\n"


class LinksTest(SynchronousTestCase):
    def setUp(self) -> None:
        require_root()
        self.folder = make_folder(self)
        self.folder.chmod(0o755)
        self.secret = self.folder / "secret"
        self.secret.write_text("precious")
        self.secret.chmod(0o600)
        self.theirs = self.folder / "theirs"
        self.theirs.mkdir()
        os.chown(self.theirs, _NOBODY, -1)

    def link(self, path: Path, target: Path | str, owner: int = _NOBODY) -> Path:
        path.symlink_to(target)
        os.lchown(path, owner, -1)
        return path

    def assert_refused(self, path: Path, flags: int = os.O_RDONLY) -> None:
        with self.assertRaises(OSError) as caught:
            open_safely(path, flags)
        self.assertEqual(caught.exception.errno, errno.ELOOP)

    def text(self, path: Path) -> str:
        with open(open_safely(path)[0]) as file:  # noqa: PTH123 - a descriptor
            return file.read()

    def test_links(self) -> None:
        # Own links are followed.
        for target in (self.secret, "../secret"):
            path = self.link(self.theirs / f"link{len(str(target))}", target, 0)
            self.assertEqual(self.text(path), "precious")
        self.link(self.folder / "way", self.theirs, 0)
        self.assertEqual(self.text(self.folder / "way" / ".." / "secret"), "precious")
        # Links to what is their owner's are followed, too, and make nothing.
        path = self.theirs / "own"
        path.write_text("x")
        os.chown(path, _NOBODY, -1)
        self.link(self.folder / "here", self.theirs)
        link = self.link(self.theirs / "to-own", self.folder / "here" / "own")
        self.assertEqual(self.text(link), "x")
        os.chown(path, 12345, -1)
        self.assert_refused(link)
        path.unlink()
        self.assert_refused(link, os.O_CREAT)
        # Links of anybody else are not, be it the file or a folder, and whether there is what they lead to or not.
        self.assert_refused(self.link(self.theirs / "file", self.secret))
        self.link(self.theirs / "folder", self.folder)
        self.assert_refused(self.theirs / "folder" / "secret")
        self.assert_refused(self.link(self.theirs / "new", self.folder / "made"), os.O_CREAT)
        self.assertFalse((self.folder / "made").exists())
        for _ in range(2):
            self.link(self.theirs / "circle", "circle", 0)
            self.assert_refused(self.theirs / "circle")
            (self.theirs / "circle").unlink()

    def test_links_of_the_kernel(self) -> None:
        """What they lead to may have no path any more, and no other user decides on it; text that says where says nothing."""
        path = self.folder / "removed"
        path.write_text("x")
        with path.open() as file:
            path.unlink()
            for named in (f"/proc/self/fd/{file.fileno()}", f"/dev/fd/{file.fileno()}"):
                self.assertEqual(files.read_bytes(Path(named)), b"x")
            self.link(self.folder / "own", f"/proc/self/fd/{file.fileno()}", 0)
            self.assertEqual(files.read_own(self.folder / "own"), b"x")
            self.assert_refused(self.link(self.theirs / "link", f"/proc/self/fd/{file.fileno()}"))
        self.assertEqual(self.text(Path(f"/proc/self/root{self.secret.absolute()}")), "precious")
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        with self.assertRaisesRegex(OSError, "no regular file"):
            files.read_own(Path(f"/dev/fd/{reader}"))

    def test_links_of_other_processes(self) -> None:
        """They are root's where a program of another user cannot be dumped, as it can decide: it may hold what it cannot read, by O_PATH."""
        code = "import os, sys; os.open(sys.argv[1], os.O_PATH); os.setuid(65534); print(flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", code, self.secret], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            self.assertEqual(other.stdout.readline(), b"\n")
            [path] = [
                one
                for one in Path(f"/proc/{other.pid}/fd").iterdir()
                if one.readlink() == self.secret.absolute()
            ]
            self.assertEqual(path.lstat().st_uid, 0)
            self.assert_refused(path)
            self.assert_refused(Path(f"/proc/{other.pid}/root{self.secret.absolute()}"))
            other.communicate(b"\n")

    def test_log(self) -> None:
        # A log is made for its owner, and appended to where it is, but not by such a link.
        log = self.theirs / "log"
        for _ in range(2):
            os.close(open_log(log, (_NOBODY, _NOBODY)))
        self.assertEqual(log.stat().st_uid, _NOBODY)
        log.unlink()
        self.link(log, self.folder / "made")
        self.assertRaises(OSError, open_log, log, (_NOBODY, _NOBODY))
        self.assertFalse((self.folder / "made").exists())
        # One of a late disk is closed when it comes after all, and belongs to its owner, who can open it next time.
        log.unlink()
        thread = threading.get_ident()

        def open_late(path: Path, flags: int) -> tuple[int, bool]:
            self.assertIsNotNone(files.late_disk(thread))
            return open_safely(path, flags)

        change_constants(self, files, PATIENCE=-1.0)
        self.patch(files, "open_safely", open_late)
        self.addCleanup(files.forget_thread, thread)
        before = look()
        self.assertRaises(TimeoutError, open_log, log, (_NOBODY, _NOBODY))
        self.assertEqual(added_since(before, patience=0), {})
        self.assertEqual(log.stat().st_uid, _NOBODY)

    def test_helper(self) -> None:
        """The helper that keeps the privilege reads no file by such a link, nor waits for the writer of a pipe."""
        key = self.theirs / "key.pem"
        rules = self.folder / "rules.ini"
        rules.write_text(f"{_RULES}[route r]\nmatch = tls\nterminate_tls = {key}\n")
        key.write_text("x")
        opener = Opener.start(rules)
        self.addCleanup(opener.close)
        os.close(opener.open_file(key))
        key.unlink()
        self.link(key, self.secret)
        with self.assertRaises(OSError) as caught:
            opener.open_file(key)
        self.assertEqual(caught.exception.errno, errno.ELOOP)
        key.unlink()
        os.mkfifo(key)
        os.close(opener.open_file(key))

    def test_list_that_a_confined_worker_of_root_may_not_open(self) -> None:
        """As the file of ``tunnel_users``, which only the supervisor can open then."""

        def refuse(path: str, _: int) -> int:
            raise PermissionError(errno.EACCES, "refused", path)

        self.secret.write_text("ann:x\n")
        self.patch(files, "_open_by_safe_links", refuse)
        pretend_user(self, 0)
        self.assertRaises(PermissionError, files.read_bytes, self.secret)
        files.use_helper(os.open)
        self.addCleanup(files.use_helper, None)
        self.assertEqual(files.read_bytes(self.secret), b"ann:x\n")

    def test_lists(self) -> None:
        """A list of networks is not read by such a link: its errors would tell everybody what is in the file."""
        listed = self.theirs / "list"
        listed.write_text("192.0.2.1\n")
        rules = self.folder / "rules.ini"
        rules.write_text(f"{_RULES}deny = @{listed}\n")
        opener = Opener.start(rules)
        self.addCleanup(opener.close)
        opener.read_rules()
        watched = WatchedFile(listed)
        self.assertEqual(watched.read(), b"192.0.2.1\n")
        listed.unlink()
        self.link(listed, self.secret)
        refused = self.assertRaises(OpenerError, opener.read_rules)
        self.assertIn(
            "the link 'list' in the path is neither root's nor of the file's owner, but of user 65534",
            str(refused),
        )
        self.assertRaises(OSError, watched.read)
        self.link(self.folder / "way", listed, 0)
        listed.unlink()
        listed.write_text("192.0.2.2\n")
        rules.write_text(f"{_RULES}deny = @{self.folder / 'way'}\n")
        opener.read_rules()

    def test_files_that_lead_where_others_may_not_look(self) -> None:
        """What such a link leads to, or whether there is anything, makes no difference."""
        for number, target in enumerate((self.secret, self.folder / "none", Path("/dev/full"))):
            path = self.link(self.theirs / f"list{number}", target)
            for read in (files.read_bytes, files.read_own):
                self.assertEqual(self.assertRaises(OSError, read, path).errno, errno.ELOOP, target)
        os.mkfifo(self.theirs / "pipe")
        before = look()
        with self.assertRaisesRegex(OSError, "no regular file"):
            files.read_bytes(self.theirs / "pipe")
        self.assertEqual(added_since(before, patience=0), {})

    def test_service(self) -> None:
        """When the service's user puts a link where the log is, and asks for it to be opened again, nothing is made by it."""
        leave_unmeasured(self)
        mux = Service(self.folder, _RULES, "user = nobody")
        self.addCleanup(mux.stop)
        mux.child.wait_for("serving with")
        folder = mux.log.parent
        folder.chmod(0o755)
        os.chown(folder, _NOBODY, -1)
        mux.log.unlink()
        self.link(mux.log, self.folder / "made")
        os.kill(mux.child.pid, signal.SIGHUP)
        eventually(lambda: "neither root's" in mux.child.output, "the log says why")
        self.assertFalse((self.folder / "made").exists())
        mux.log.unlink()
        os.kill(mux.child.pid, signal.SIGHUP)
        eventually(mux.log.exists, "the log is there again")


class ReadTest(SynchronousTestCase):
    def test_what_is_no_regular_file(self) -> None:
        """A pipe whose writer is silent would halt the service, a device may have no end, and no file is larger than it may be."""
        path = make_folder(self) / "file"
        of_terminal = os.openpty()
        for end in of_terminal:
            self.addCleanup(os.close, end)

        makes: dict[str, Callable[[], object]] = {
            "it is no regular file": lambda: os.mkfifo(path),
            "it is larger than 64 MiB": lambda: spoil(path, "huge"),
            "it is no regular file /but a socket": lambda: self.enterContext(
                socket.socket(socket.AF_UNIX)
            ).bind(str(path)),
        }
        for target in ("/dev/zero", os.ttyname(of_terminal[1])):
            makes[f"it is no regular file {target}"] = partial(path.symlink_to, target)
        for why, make in makes.items():
            make()
            writer = os.open(path, os.O_RDWR) if path.is_fifo() else None  # silent
            for read in (files.read_bytes, files.read_own, files.read_secret):
                error = self.assertRaises(OSError, read, path)
                self.assertEqual(error.strerror, why.partition(" /")[0])
                self.assertEqual(Path(error.filename).name, path.name)
            if writer is not None:
                os.close(writer)
            path.unlink()

    def test_dead_disk(self) -> None:
        """Once a thread has waited for long for a file, nothing in its folder is touched, and what is elsewhere is."""
        folder, elsewhere = make_folder(self), make_folder(self) / "a"
        long_ago = time.monotonic() - files.PATIENCE - 1
        change_constants(self, files, _waiting={-1: (long_ago, str(folder / "b"))})
        for use in (
            files.read_bytes, files.read_own, read_secret, files.state_at,
            files.open_once, open_log, partial(replace_file, data=b""),
        ):  # fmt: skip
            error = self.assertRaises(TimeoutError, use, folder / "a")
            self.assertIn(f"has not answered for 8 s when '{folder}/b' was read", str(error))
        self.assertRaises(TimeoutError, files.names_in, folder / "b")
        self.assertEqual([*folder.iterdir()], [])
        elsewhere.touch()
        self.assertEqual(read_bytes(elsewhere), b"")

    def test_most(self) -> None:
        for read in (files.read_bytes, files.read_own):
            self.assertEqual(read(Path(os.devnull)), b"")
        # Errors name the file.
        folder = make_folder(self)
        for path, error in ((folder, IsADirectoryError), (folder / "x", FileNotFoundError)):
            self.assertEqual(self.assertRaises(error, read_bytes, path).filename, str(path))
        # No more is read than is wanted.
        path = folder / "file"
        path.write_bytes(b"x" * 10)
        self.assertEqual(read_bytes(path, 10), b"x" * 10)
        self.assertRaises(OSError, read_bytes, path, 9)
        # A secret is one printable line.
        for content, secret in (
            (b"a0-_~\n", "a0-_~"), (b"two words", "two words"), (b"a\r\n", "a"), (b"", ""),
            (b"\n", ""), (b"a\nb\n", ""), (b"a\0", ""), ("a\N{EURO SIGN}".encode(), ""),
            (b"\xff", ""),
        ):  # fmt: skip
            path.write_bytes(content)
            self.assertEqual(read_secret(path), secret, content)

    def test_what_is_no_file_stays(self) -> None:
        """Root would take ``/dev/null`` from the whole machine."""
        folder = make_folder(self)
        path = folder / "name"
        for replace in (lambda: replace_file(path, b""), lambda: write_pid(path, os.getpid())):
            os.mkfifo(path)
            before = path.lstat()
            self.assertRaises(OSError, replace)
            self.assertEqual((path.lstat(), [*folder.iterdir()]), (before, [path]))
            path.unlink()
            path.symlink_to("nowhere")
            replace()
            self.assertTrue(path.is_file())
            path.unlink()


class DeadDiskTest(SynchronousTestCase):
    """A disk of another machine may not answer, where each call waits for good."""

    def setUp(self) -> None:
        self.path = make_folder(self) / "file"
        self.path.write_bytes(b"x")
        self.is_back = threading.Event()
        self.addCleanup(self.end_threads)
        self.before = set(threading.enumerate())
        change_constants(self, files, PATIENCE=0.05)
        self.patch(files, "_open_own", self.open)

    def open(self, path: Path) -> BinaryIO:
        self.is_back.wait()
        return path.open("rb")

    def end_threads(self) -> None:
        self.is_back.set()
        for thread in set(threading.enumerate()) - self.before:
            thread.join()

    def test_nobody_waits(self) -> None:
        """Who reads a file is left behind, who reads the same one next does not wait, and what is read later counts for nobody."""
        error = self.assertRaises(TimeoutError, files.within_patience, read_bytes, self.path)
        self.assertEqual(error.filename, str(self.path))
        self.assertIn("its disk has not answered for 0.05 s", error.strerror)
        [left] = set(threading.enumerate()) - self.before
        self.assertTrue(left.daemon)
        self.assertRaises(TimeoutError, read_bytes, self.path)
        self.end_threads()
        self.assertEqual(files.within_patience(read_bytes, self.path), b"x")
        self.assertEqual(read_bytes(self.path), b"x")

    def test_work_that_waits_for_no_disk(self) -> None:
        # A slow machine has all the time it needs.
        def work() -> bytes:
            self.is_back.wait(0.5)
            with files.on_disk(self.path):
                self.is_back.set()
            return read_bytes(self.path)

        self.assertEqual(files.within_patience(work), b"x")
        self.assertRaises(ZeroDivisionError, files.within_patience, divmod, 1, 0)
