"""The helper that keeps the privilege."""

import errno
import itertools
import os
import pwd
import signal
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import BinaryIO
from unittest.mock import Mock

import attrs
import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.processes.test_privileges import require_root
from tests.support.installed import as_installed
from tests.support.kit import PATIENCE, change_constants, eventually, make_folder
from txmux import files
from txmux.files import open_log, read_bytes, use_helper
from txmux.net.channel import messages
from txmux.processes import opener, opening_server
from txmux.processes.liveness import ProcessActivity, activity_of
from txmux.processes.opener import Opener, OpenerError, opener_of
from txmux.processes.opening_server import OpeningServer
from txmux.rules.reading import context, parser
from txmux.serving.listen_addresses import ListenAddress, listen_addresses

pytestmark = pytest.mark.by_turns(each=True)


def _is_halted(pid: int) -> bool:
    activity = activity_of(pid)
    return activity is not None and activity.is_halted


class HelperOfRules:
    """A real helper; what it may do is a matter of the rules, whoever runs it."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.test = test
        self.folder = make_folder(test)
        self.rules = self.folder / "rules.ini"
        self.key = self.folder / "key.pem"
        self.key.write_text("precious")
        self.write("127.0.0.1:0")
        self.opener = test.enterContext(closing(Opener.start(self.rules)))

    def write(self, endpoint: str, key: str = "key.pem") -> None:
        self.rules.write_text(
            f"[txmux]\naccess_log = {self.folder}/log\n[listen public]\nendpoint = {endpoint}\n"
            f"[route secure]\nunder = *\nmatch = tls\nterminate_tls = {key}\n"
        )

    def place(self) -> ListenAddress:
        return listen_addresses(self.opener.read_rules().listeners[0])[0]

    def assert_denied(self, path: Path, flags: int = os.O_RDONLY) -> None:
        with self.test.assertRaises(PermissionError) as caught:
            self.opener.open_file(path, flags)
        self.test.assertIn("the rules do not name", str(caught.exception))

    def text(self, path: Path) -> str:
        with open(self.opener.open_file(path)) as file:  # noqa: PTH123 - a descriptor
            return file.read()


class OpenerTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.helper = HelperOfRules(self)
        self.folder, self.rules = self.helper.folder, self.helper.rules
        self.key, self.opener = self.helper.key, self.helper.opener
        assert self.opener.process is not None
        self.process = self.opener.process
        self.pid = self.process.pid

    def take(self, left_out: Sequence[str] = ()) -> None:
        self.opener.read_rules()
        self.opener.commit(left_out)

    def include(self, pattern: str) -> None:
        text = self.rules.read_text()
        self.rules.write_text(text.replace("[txmux]", f"[txmux]\ninclude = {pattern}"))

    def test_name(self) -> None:
        """The file that names the process has only IDs of processes of the rules' user, and no link leads elsewhere."""
        pidfile, other = self.folder / "txmux.pid", self.folder / "other"
        other.write_text("x")
        user = pwd.getpwuid(os.getuid()).pw_name
        self.rules.write_text(self.rules.read_text().replace("[txmux]", f"[txmux]\nuser = {user}"))
        opener = self.enterContext(closing(Opener.start(self.rules, pidfile)))
        opener.read_rules()
        for link in (pidfile, self.folder / f".txmux.pid.{os.getpid()}"):
            link.symlink_to(other)
        opener.write_pidfile(False)  # noqa: FBT003 - as `PidFile` calls it
        self.assertEqual(pidfile.read_text(), f"{os.getpid()}\n")
        self.assertFalse(pidfile.is_symlink())
        self.assertEqual(other.read_text(), "x")
        opener.write_pidfile(True)  # noqa: FBT003 - as above
        self.assertFalse(pidfile.exists())
        self.rules.write_text(self.rules.read_text().replace(f"user = {user}", "user = bin"))
        if os.geteuid() == 0:
            opener.read_rules()
            with self.assertRaises(PermissionError):
                opener.write_pidfile(False)  # noqa: FBT003 - as above
        with self.assertRaises(PermissionError):  # nobody has asked for such a file
            self.opener.write_pidfile(False)  # noqa: FBT003 - as above

    def test_files(self) -> None:
        """What the rules name can be read, whatever else there is cannot, nor can anything be written; the log is made, and appended to."""
        self.assertEqual(self.helper.text(self.key), "precious")
        self.assertEqual(self.helper.text(self.rules), self.rules.read_text())
        other = self.folder / "other"
        other.write_text("x")
        link = self.folder / "link"
        link.symlink_to(self.key)
        for path in (other, link, self.folder, self.folder / "log"):
            self.helper.assert_denied(path)
        for path in (self.key, self.rules, other):
            self.helper.assert_denied(path, os.O_WRONLY)
        self.assertEqual(self.key.read_text(), "precious")
        log = self.folder / "log"
        for text in (b"one\n", b"two\n"):
            descriptor = self.opener.open_file(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, text)
            os.close(descriptor)
        self.assertEqual(log.read_text(), "one\ntwo\n")
        self.assertEqual(log.stat().st_mode & 0o777, 0o640)
        # A file that is named and not there is missing, as it is without a helper; a folder in its place is one.
        self.key.unlink()
        self.assertRaises(FileNotFoundError, self.opener.open_file, self.key)
        self.key.mkdir()
        self.assertRaises(IsADirectoryError, self.opener.open_file, self.key)
        # Rules need no disk.
        descriptor = self.opener.descriptor(messages.READ_RULES)
        self.addCleanup(os.close, descriptor)
        self.assertIn("memfd:", str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def test_thread(self) -> None:
        """While a thread reads the rules, files are opened as at any time, and neither gets the other's answer."""
        route = "[route r{0}]\nmatch = http host=h{0}\nbackend = close\n"
        more = "".join(map(route.format, range(200)))
        self.rules.write_text(self.rules.read_text() + more)
        self.opener.read_rules()
        with ThreadPoolExecutor(1) as thread:
            reading = thread.submit(self.opener.read_rules)
            while not reading.done():
                self.assertEqual(self.helper.text(self.key), "precious")
            self.assertEqual(len(reading.result().routes), 201)

    def test_reading_that_takes_long(self) -> None:
        """On a small machine, the rules take the helper a minute: nobody who wants a file waits for that."""
        helper, may_read = OpeningServer(self.rules), threading.Event()
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opener = Opener(own)
        self.addCleanup(other.close)
        with ThreadPoolExecutor(2) as threads:
            serving = threads.submit(helper.serve, other)
            opener.read_rules()
            read = helper._read
            self.patch(helper, "_read", lambda: may_read.wait() and read())
            reading = threads.submit(opener.read_rules)
            try:
                os.close(opener.open_file(self.key))
                worker = Opener(opener.another())
                os.close(worker.open_file(self.folder / "log", os.O_WRONLY))
                worker.close()
                self.assertFalse(reading.done())
            finally:
                may_read.set()
            self.assertEqual(len(reading.result().routes), 1)
            opener.close()
            serving.result()

    def test_secrets(self) -> None:
        """Workers do not get what only the service needs: the secret of its clients, and its own for CrowdSec."""
        told = as_installed(
            "admin = 127.0.0.1:0\nadmin_token = admin.token\nadmin_tokens = tokens\ncrowdsec_key = crowdsec.key\n"
            "[listen other]\nendpoint = 127.0.0.1:0\ndeny = crowdsec:http://127.0.0.1:1\n"
        )
        names = ("admin.token", "tokens", "crowdsec.key")
        tokens = [self.folder / name for name in names if name in told]
        for token in tokens:
            token.write_text(token.name)
        self.rules.write_text(self.rules.read_text().replace("[listen", f"{told}[listen", 1))
        self.opener.read_rules()
        self.assertEqual([*map(self.helper.text, tokens)], [token.name for token in tokens])
        with self.opener.another() as connection:
            other = Opener(connection)
            os.close(other.open_file(self.folder / "log", os.O_WRONLY))
            for token in [*tokens, self.key]:
                self.assertRaises(PermissionError, other.open_file, token)

    def test_binds_only_addresses_of_the_rules(self) -> None:
        """And only those that this process may not bind itself."""
        place = self.helper.place()
        forbidden = Mock(side_effect=PermissionError(errno.EACCES, "no"))
        with opener_of(forbidden, self.opener)(place) as opened:
            self.assertTrue(opened.getsockname()[1])
        with socket.socket() as own:
            self.assertIs(opener_of(lambda _: own, self.opener)(place), own)
        with self.opener.bind(place) as opened:
            opened.listen()
            socket.create_connection(opened.getsockname()).close()
            self.assertFalse(opened.getblocking())
        for text in ("127.0.0.1:1", "unix:/tmp/x", "systemd:domain=INET:index=0"):
            with self.assertRaises(PermissionError):
                self.opener.bind(ListenAddress("public", text, 5, text, "tcp"))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.helper.write(f"127.0.0.1:{taken.getsockname()[1]}")
            with self.assertRaises(OSError) as caught:
                self.opener.bind(self.helper.place())
            self.assertEqual(caught.exception.errno, errno.EADDRINUSE)
        # It removes the files of sockets that the rules name, and no others.
        path = self.folder / "a.sock"
        self.helper.write(f"unix:{path}")
        self.opener.bind(self.helper.place()).close()
        self.assertRaises(PermissionError, self.opener.remove_socket, self.key, (0, 0))
        self.opener.remove_socket(path, (0, 0))
        self.assertFalse(path.exists())

    def test_changed_rules(self) -> None:
        # Rules that were read for nothing name nothing any more once others are read, and those with errors change nothing.
        new = self.folder / "new.pem"
        new.write_text("new")
        self.helper.text(self.key)
        self.helper.write("127.0.0.1:0", "new.pem")
        self.opener.read_rules()
        self.helper.write("127.0.0.1:0")
        self.opener.read_rules()
        self.helper.assert_denied(new)
        self.rules.write_text("[listen x]\n")
        with self.assertRaisesRegex(OpenerError, r"rules.ini:1: \[listen x\] endpoint: is missing"):
            self.opener.read_rules()
        self.assertEqual(self.helper.text(self.key), "precious")
        # Of changed rules, it opens what they name as soon as they are read; and what those before name, until these hold.
        self.helper.write("127.0.0.1:0", "new.pem")
        self.helper.assert_denied(new)
        self.opener.read_rules()
        self.assertEqual((self.helper.text(new), self.helper.text(self.key)), ("new", "precious"))
        self.opener.commit()
        self.assertEqual(self.helper.text(new), "new")
        self.helper.assert_denied(self.key)

    def write_units(self, names: str) -> tuple[Path, dict[str, Path]]:
        """Have the rules include units, each of which names a key; return their folder, and the keys."""
        folder = self.folder / "d"
        keys = {name: folder / f"{name}.pem" for name in names}
        folder.mkdir()
        for name, key in keys.items():
            key.write_text(name)
            (folder / f"{name}.ini").write_text(
                f"[listen {name}]\nendpoint = 127.0.0.1:0\n[backend x]\nserver = 127.0.0.1:1\n"
                f"[route on-{name}]\nmatch = tls\nterminate_tls = {key}\nunder = {name}\nbackend = x\n"
            )
        self.include("d/*.ini")
        return folder, keys

    def test_units(self) -> None:
        """It opens what a unit names that only others keep out, since these may be unservable; and nothing of one with an error."""
        folder, keys = self.write_units("abcde")
        with (folder / "d.ini").open("a") as file:
            file.write("worse\n")
        (folder / "e.ini").rename(folder / "e.away")
        [_, address] = map(listen_addresses, self.opener.read_rules().listeners)
        for again in (False, True):
            for name in "abc":
                self.assertEqual(self.helper.text(keys[name]), name)
                place = attrs.evolve(address[0], listener=name)
                with self.opener.bind(place) as opened:
                    self.assertTrue(opened.getsockname()[1])
            for name in "de":
                self.helper.assert_denied(keys[name])
                with self.assertRaises(PermissionError):
                    self.opener.bind(attrs.evolve(address[0], listener=name))
            if not again:
                self.opener.commit()
        (folder / "b.ini").unlink()
        self.take()
        self.helper.assert_denied(keys["b"])
        self.assertEqual(self.helper.text(keys["c"]), "c")

    def test_units_in_force(self) -> None:
        """It opens what is in force for a unit as long as that has an error, or its removal is not taken, and no longer."""
        unit, new = self.folder / "a.unit", self.folder / "new.pem"
        new.write_text("new")
        text = "[listen a]\nendpoint = 127.0.0.1:0\n[route b]\nmatch = tls\nterminate_tls = new.pem\nunder = a\nbackend = close\n"
        self.include("*.unit")
        # The supervisor leaves some out that have no error, as for a port that is taken.
        other = text.replace("new.pem", "key.pem")
        for now in (text, f"{text}worse\n", other, f"{text}worse\n", other, f"{text}worst\n"):
            unit.write_text(now)
            self.take([str(unit)] if now is other else [])
            self.assertEqual(self.helper.text(new), "new")
        unit.write_text("")
        self.take()
        self.helper.assert_denied(new)
        # Its whole file, or a part of one.
        for header, name in (("", str(unit)), ("[unit b]\n", f"{unit} [unit b]")):
            unit.write_text(header + text)
            self.take()
            if header:
                unit.write_text("")
            else:
                unit.unlink()
            for left_out in ([name], [name], []):
                self.take(left_out)
                if left_out:
                    self.assertEqual(self.helper.text(new), "new")
                else:
                    self.helper.assert_denied(new)

    def test_unit_that_is_left_out(self) -> None:
        # Its port is opened as long as the unit names it, since the supervisor tries whether another program still has it.
        unit = self.helper.folder / "a.unit"
        self.include("*.unit")
        self.take()
        unit.write_text("[listen a]\nendpoint = 127.0.0.1:0\n")
        [_, (address,)] = map(listen_addresses, self.opener.read_rules().listeners)
        self.opener.commit([str(unit)])
        self.opener.bind(address).close()
        unit.write_text("[listen a]\nendpoint = 127.0.0.2:0\n")
        self.take()
        with self.assertRaises(PermissionError):
            self.opener.bind(address)
        # What a helper of before an upgrade takes, and its supervisor does not, is an error of that unit alone.
        route = "[route b]\nmatch = tls\nbackend = unix:/s\n"
        unit.write_text(f"[listen a]\nendpoint = 127.0.0.1:0\n{route}")
        self.assertEqual([one.name for one in self.opener.read_rules().listeners], ["public", "a"])
        change_constants(self, context, other_author=lambda _, unit: 12345 if unit else None)
        parser.last_read = None
        rules = self.opener.read_rules()
        self.assertEqual([one.name for one in rules.listeners], ["public"])
        self.assertEqual([*rules.files.untaken], [str(unit)])

    def test_files_that_an_owner_may_not_read(self) -> None:
        """It opens nothing for a unit that its owner may not read, whether others keep the unit out or not."""
        require_root()
        self.folder.chmod(0o755)
        _, keys = self.write_units("ab")
        for key in keys.values():
            key.chmod(0o600)
            os.chown(key.with_suffix(".ini"), 12345, -1)
        for mode in (0o600, 0o604):
            for name, key in keys.items():
                key.chmod(mode)
                self.opener.read_rules()
                if mode == 0o600:
                    self.helper.assert_denied(key)
                else:
                    self.assertEqual(self.helper.text(key), name)

    def test_unforeseen_failure(self) -> None:
        """What nobody has foreseen ends a request, and never the helper, without which the service cannot go on."""
        helper = OpeningServer(self.rules)
        for failure, why in (
            (MemoryError(), "MemoryError"),
            (RuntimeError("can't start new thread"), "can't start new thread"),
            (TypeError("x"), "x"),
        ):
            fail = Mock(side_effect=failure)
            patched = self.patch(opening_server, "load_within_patience", fail)
            answer, descriptors = helper.answer({"kind": "rules"}, may_all=True)
            patched.restore()
            self.assertEqual(descriptors, [])
            refused = f"the helper that opens files could not do it: {why}"
            self.assertEqual(answer, {"refused": refused})
        _, (descriptor,) = helper.answer({"kind": "rules"}, may_all=True)
        os.close(descriptor)

    def test_helper_that_does_not_answer(self) -> None:
        # For the first answer it has as long as a process may take to start, for the others less.
        patience = opener._PATIENCE
        patched = self.patch(opener, "_PATIENCE", 0.001)
        made = self.enterContext(closing(Opener.start(self.rules)))
        patched.restore()
        with open(made.open_file(self.key)) as file:  # noqa: PTH123 - a descriptor
            self.assertEqual(file.read(), "precious")
        self.assertEqual(made.limit, patience)
        # A late answer is not taken for the next.
        self.helper.text(self.key)
        os.kill(self.pid, signal.SIGSTOP)
        self.opener.limit = 0.01
        with self.assertRaisesRegex(OSError, "cannot be reached"):
            self.opener.open_file(self.rules)
        os.kill(self.pid, signal.SIGCONT)
        self.opener.limit = PATIENCE
        self.assertEqual(self.helper.text(self.key), "precious")
        # As long as it is ready to run, or runs, it is waited for.
        looks = itertools.count()

        def works(pid: int) -> ProcessActivity:
            self.assertEqual(pid, self.pid)
            if next(looks) == 3:
                os.kill(pid, signal.SIGCONT)
            return ProcessActivity("R", 0.0)

        self.patch(opener, "activity_of_threads", works)
        change_constants(self, opener, _SLICE=0.01)
        os.kill(self.pid, signal.SIGSTOP)
        self.opener.limit = 0.01
        self.assertEqual(self.helper.text(self.key), "precious")
        self.assertGreater(next(looks), 3)
        # One that has ended.
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()
        with self.assertRaisesRegex(OSError, "the helper that opens files"):
            self.opener.open_file(self.key)

    def test_passed_on(self) -> None:
        self.helper.text(self.key)  # it has started
        deny = ",".join(f"10.{i >> 8}.{i & 255}.1" for i in range(60_000))
        with self.rules.open("a") as file:
            file.write(f"[listen other]\nendpoint = 127.0.0.1:0\ndeny = {deny}\n")
        change_constants(self, opener, _SLICE=0.05)
        other = self.enterContext(closing(Opener(self.opener.another(may_all=True), patience=0.1)))
        other.watch_helper()
        # A thread of it reads the rules, while its loop sleeps: it works all the same.
        self.assertEqual(len(other.read_rules().listeners), 2)
        # A halted helper is noticed also by a process that has taken it over, which did not start it.
        for each in (self.opener, other):
            for state, pid in ((signal.SIGSTOP, self.pid), (signal.SIGCONT, 0)):
                os.kill(self.pid, state)
                is_halted = state == signal.SIGSTOP
                eventually(lambda: _is_halted(self.pid) == is_halted, "the signal has come")  # noqa: B023
                found = list[int]()
                for _ in range(10):
                    each.look()
                    found.append(each.halted())
                self.assertEqual(found, [0] * 9 + [pid])
        # The process that takes the place of the service may ask for everything, also when the first one is gone.
        self.opener.close(wait=False)
        self.assertIn(str(self.rules), other.read_rules().files.texts)
        other.bind(listen_addresses(other.read_rules().listeners[0])[0]).close()
        other.commit()


class FilesTest(SynchronousTestCase):
    def test_helper(self) -> None:
        """Only what this process is not permitted to open is asked of the helper."""
        folder = make_folder(self)
        own, other = folder / "own", folder / "other"
        own.write_text("own")
        other.write_text("other")
        asked = []

        def helper(path: Path, flags: int) -> int:
            asked.append(path)
            return os.open(path, flags)

        def is_fifo(path: Path) -> bool:
            if path == other:
                raise PermissionError(errno.EACCES, "Permission denied")
            return False

        def open_own(path: Path) -> BinaryIO:
            is_fifo(path)
            return path.open("rb")

        self.patch(files, "_open_own", open_own)
        self.assertRaises(PermissionError, read_bytes, other)
        use_helper(helper)
        self.addCleanup(use_helper, None)
        self.assertEqual((read_bytes(own), read_bytes(other)), (b"own", b"other"))
        self.assertEqual(asked, [other])
        self.patch(Path, "is_fifo", is_fifo)
        os.close(open_log(other))
        os.close(open_log(folder / "log"))
        self.assertEqual(asked, [other, other])
        self.assertRaises(PermissionError, open_log, other, alone=True)
