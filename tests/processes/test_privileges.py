"""Root gives up its privileges once it listens. What it was must not come back."""

import contextlib
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest, mock

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import PATIENCE, Child, eventually, leave_unmeasured, run
from tests.support import proc
from tests.support.kit import free_port, make_authority, make_folder, pretend_user
from tests.support.services import Service, Twist, twist_command
from txmux.processes import account
from txmux.processes.account import AccountError, UserAccount, account_of
from txmux.processes.worker import landlock
from txmux.rules.reading.parser import parse

_NOBODY = pwd.getpwnam("nobody")
_TWISTD = (
    *(str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile="),
    *("--uid=nobody", f"--gid={_NOBODY.pw_gid}"),
)
_GET = b"GET / HTTP/1.1\r\n\r\n"
_UNIT = "[listen {0}]\nendpoint = {1}\ndefault = reject\n"
_PROMPTLY = 30.0
"""Seconds in which a service stops that nothing holds up."""
_RULES = """
[listen public]
endpoint = 127.0.0.1:0
default = reject
"""


def require_root() -> None:
    if os.geteuid() != 0:
        raise SkipTest("only root has privileges to give up")


def ids_of(pid: int) -> dict[str, list[int]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    words = {name: values.split() for name, _, values in (line.partition(":") for line in lines)}
    found = {name: list(map(int, words[name])) for name in ("Uid", "Gid", "Groups")}
    found["Cap"] = [int(words[name][0], 16) for name in ("CapPrm", "CapEff", "CapAmb")]
    return found


def python_for_everybody() -> tuple[str, ...]:
    """Give a command that runs another one so that its Python, if it is at home with root, can be run by all."""
    python = Path(sys.executable).resolve()
    closed = [folder for folder in python.parents if not folder.stat().st_mode & 0o001]
    if not closed:
        return ()
    top = closed[-1]
    home = top / python.relative_to(top).parts[0]
    script = (
        'held=$(mktemp -d) && mount --bind "$2" "$held" && mount -t tmpfs -o mode=755 tmpfs "$1" && '
        'mkdir "$2" && mount --bind "$held" "$2" && umount "$held" && rmdir "$held" && '
        'shift 2 && exec "$@"'
    )
    return ("unshare", "--mount", "sh", "-c", script, "sh", str(top), str(home))


def free_low_port(test: SynchronousTestCase) -> int:
    """Give a port below 1024 that nobody listens on, and that no other test is given until this one ends."""
    for port in range(1000, 1024):
        mark = test.enterContext(socket.socket(socket.AF_UNIX))
        # Other processes run tests, too, and listen only later.
        with contextlib.suppress(OSError), socket.socket() as probe:
            mark.bind(f"\0txmux-tests-{port}")
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("there is no free port below 1024")


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(_GET)
        return b"".join(iter(lambda: client.recv(4096), b""))


def shown(port: int) -> str:
    """Return the name in the certificate that clients get."""
    done = run("openssl", "s_client", "-connect", f"127.0.0.1:{port}")
    match = re.search(rb"subject=CN ?= ?(\S+)", done.stdout)
    return match[1].decode() if match else ""


_NO_PROC = ("unshare", "--mount", "sh", "-ec", 'umount -l /proc; exec "$0" "$@"')


@pytest.mark.whole
class DroppingTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_root()
        leave_unmeasured(self)
        self.folder = make_folder(self)
        self.folder.chmod(0o755)

    def mux(self, settings: str = "", rules: str = _RULES, **options: Any) -> Service:
        mux = Service(self.folder, rules, f"user = nobody\n{settings}", **options)
        self.addCleanup(mux.end)
        return mux

    def assert_nobody(self, pid: int, gid: int = _NOBODY.pw_gid) -> None:
        found = ids_of(pid)
        self.assertEqual(found["Uid"], [_NOBODY.pw_uid] * 4)
        self.assertEqual(found["Gid"], [gid] * 4)
        self.assertLessEqual(set(found["Groups"]), {gid, _NOBODY.pw_gid})
        self.assertEqual(found["Cap"], [0, 0, 0])

    def test_all_processes_become_the_user(self) -> None:
        """But for the helper, which is still root, and ends with the service, however that ends."""
        port = free_low_port(self)
        rules = _RULES.replace(":0", f":{port}")
        mux = Service(self.folder, rules, "user = nobody\ngroup = daemon\nworkers = 2")
        self.addCleanup(mux.child.end)
        workers = mux.workers
        self.assertEqual(len(workers), 2)
        for pid in (mux.child.pid, proc.starter_of(mux.child.pid), *workers):
            self.assert_nobody(pid, gid=1)
        self.assertIn(b"403 Forbidden", ask(port))
        (helper,) = proc.named(mux.child.pid, "helper")
        self.assertEqual(ids_of(helper)["Uid"], [0] * 4)
        os.kill(helper, signal.SIGTERM)  # as systemd does it, which means the service
        ask(mux.port)
        mux.child.process.kill()
        eventually(lambda: proc.is_gone(helper), "the helper has ended")

    def test_endpoint_of_twisted(self) -> None:
        """What workers are forked of is that user as soon as one of them has opened an endpoint that only Twisted can."""
        path = self.secret("site.example")
        endpoint = f"ssl:0:interface=127.0.0.1:privateKey={path}"
        mux = self.mux(rules=_RULES.replace("127.0.0.1:0", endpoint))
        starter = proc.starter_of(mux.child.pid)
        eventually(lambda: ids_of(starter)["Uid"] == [_NOBODY.pw_uid] * 4, "it is nobody")
        for pid in (mux.child.pid, starter, *mux.workers):
            self.assert_nobody(pid)

    def test_log_and_halted_helper(self) -> None:
        """The log's file belongs to that user, who can open it again; where the folder does not allow it, the helper that kept the privilege does."""
        mux = self.mux()
        for number, folder in enumerate(("closed", "open")):
            status = mux.log.stat()
            self.assertEqual((status.st_uid, status.st_gid), (_NOBODY.pw_uid, _NOBODY.pw_gid))
            self.assertEqual(status.st_mode & 0o777, 0o640)
            if folder == "open":
                os.chown(mux.log.parent, _NOBODY.pw_uid, -1)
            mux.log.rename(mux.log.with_name(f"old{number}"))
            mux.reload()
            ask(mux.port)
            eventually(lambda: len(mux.lines()) == 1, "it has its line")
        self.assertEqual(mux.log.stat().st_uid, _NOBODY.pw_uid)
        # That the user cannot run Python is told at the start, since no process of that user can be started later.
        closed = not python_for_everybody()
        self.assertNotEqual("user nobody cannot run " in mux.output, closed)
        # A worker is, since it is forked.
        (old,) = mux.workers
        os.kill(old, signal.SIGKILL)
        eventually(lambda: [*mux.workers] not in ([], [old]), "it is replaced")
        ask(mux.port)
        self.assert_nobody(mux.workers[0])
        # A helper that is halted, and that the service may not end, does not hold up its stop.
        with proc.halted(proc.named(mux.child.pid, "helper")):
            mux.terminate()
            mux.child.process.wait(_PROMPTLY)
        mux.assert_stopped()

    def secret(self, name: str) -> Path:
        """Write a certificate with a key that only root can read, in a folder that only root can look into."""
        path = self.folder / "keys/site.pem"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        make_authority().issue(name).write(path, key=True)
        path.chmod(0o600)
        return path

    def secure(self, path: Path) -> str:
        return f"{_RULES}[route secure]\nmatch = tls\nterminate_tls = {path}\n"

    def test_upgrade(self) -> None:
        """An upgraded program goes on with the helper: it reads rules and keys that only root can read, opens a port below 1024, and so do its workers."""
        # A restarted worker has the user and the key.
        rules = self.secure(self.secret("old.example"))
        mux = self.mux("workers = 2", rules, before=python_for_everybody())
        workers = mux.workers
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        # The first one may be replaced, and all serve again, before the second is killed.
        eventually(lambda: len({*mux.workers} - {*workers}) == 2, "both are replaced")
        successors = mux.workers
        self.assertEqual(set(workers) & set(successors), set())
        self.assertEqual(shown(mux.port), "old.example")
        for pid in successors:
            self.assert_nobody(pid)
        (helper,) = proc.named(mux.child.pid, "helper")
        self.assertEqual(mux.pidfile.stat().st_uid, 0)  # by the helper
        file = mux.file
        file.chmod(0o600)
        port = free_low_port(self)
        file.write_text(file.read_text().replace(":0\n", f":0\n    127.0.0.1:{port}\n"))
        mux.upgrade()
        self.assertIn(b"403 Forbidden", ask(port))
        self.assertEqual(shown(mux.port), "old.example")
        self.assert_nobody(mux.pid)
        self.assertFalse(proc.is_gone(helper))
        # Nor is there a process that nobody waits for.
        self.assertEqual(proc.pids_of(helper), [])
        self.assertEqual([pid for pid in proc.family_of(mux.pid) if proc.is_gone(pid)], [])
        self.secret("new.example")
        os.kill(mux.pid, signal.SIGHUP)
        eventually(lambda: shown(mux.port) == "new.example", "the new one is shown")
        self.secret("old.example")
        mux.stop()
        eventually(lambda: proc.is_gone(helper), "the helper has ended")
        self.assertFalse(mux.pidfile.exists())

    def test_upgrade_before_a_unit_gets_wrong(self) -> None:
        """What an upgrade has taken is in force for the helper, too: a certificate that only the new text names can be renewed."""
        units = self.folder / "d"
        units.mkdir(mode=0o700)
        port, unit = free_port(), units / "a.ini"
        text = _UNIT.format("a", f"127.0.0.1:{port}")
        unit.write_text(text)
        settings = f"include = {units}/*.ini"
        mux = self.mux(settings, admin=True, before=python_for_everybody())
        path = self.secret("old.example")
        text += f"[route secure]\nmatch = tls\nunder = a\nterminate_tls = {path}\n"
        unit.write_text(text)
        mux.upgrade()
        self.assertEqual(shown(port), "old.example")
        unit.write_text(f"{text}worse\n")
        self.assertEqual(len(mux.api("reload", {})["untaken"]), 1)
        self.secret("new.example")
        eventually(lambda: shown(port) == "new.example", "the new one is shown")

    def test_whom_the_kernel_kills_first(self) -> None:
        """Whoever has been root before: workers before supervisor and helper, also after an upgrade, by which the service may lose root."""
        mux = Service(self.folder, _RULES, "workers = 2", before=python_for_everybody())
        self.addCleanup(mux.kill_all)
        mux.file.write_text(mux.file.read_text().replace("[txmux]\n", "[txmux]\nuser = nobody\n"))
        for _ in range(2):
            mux.upgrade()
            self.assert_nobody(mux.pid)
            usual = proc.oom_score_of(os.getpid())
            os.kill(mux.workers[0], signal.SIGKILL)  # the next one is forked without root
            eventually(lambda: len(mux.workers) == 2, "there are two again")
            proc.await_oom_scores(mux.pid, usual, usual + 150, usual + 300, usual + 300)
            last = (mux.pid, *proc.named(mux.pid, "helper"))
            self.assertEqual({*map(proc.oom_score_of, last)}, {usual})
        mux.stop()

    def test_reload(self) -> None:
        """Changed rules may have a port below 1024, and a certificate in a folder of root's; errors change nothing."""
        self.folder.chmod(0o700)
        public = self.folder / "socket"
        listening = _RULES.replace(":0", f":0\n    unix:{public}")
        mux = self.mux("workers = 2\ninclude = d/*.ini", listening)
        self.assertEqual(mux.pid, mux.child.pid)
        self.assertTrue(public.exists())
        rules = mux.file
        before = rules.read_text()
        path = self.secret("new.example")
        port = free_low_port(self)
        changed = before.replace(":0\n", f":0\n    127.0.0.1:{port}\n").partition("[route")[0]
        route = f"{changed}\n[route new]\nmatch = tls\nterminate_tls = "
        rules.write_text(f"{route}{path.parent}/missing.pem\n")
        self.assertRegex(mux.reload(), "failed, keeping the previous rules: .*missing.pem")
        rules.write_text(f"{route}{path}\n")
        self.assertIn("rules reloaded: 1 route new (new)", mux.reload())
        self.assertIn(b"403 Forbidden", ask(port))
        self.assertEqual(shown(mux.port), "new.example")
        self.assert_nobody(mux.child.pid)
        # A unit has its port also where another one kept it out, whose own port is taken.
        folder = mux.file.parent / "d"
        folder.mkdir()
        port = free_low_port(self)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for name, own in (("a", taken.getsockname()[1]), ("b", port)):
                (folder / f"{name}.ini").write_text(
                    f"[listen {name}]\nendpoint = 127.0.0.1:{own}\ndefault = reject\n"
                    "[backend x]\nserver = 127.0.0.1:1\n"
                )
            said = mux.reload()
            self.assertIn(b"403 Forbidden", ask(port), said)
        # The file that names the process, and sockets, may be where nobody else can look; they are removed by the helper.
        mux.stop()
        self.assertFalse(public.exists() or mux.pidfile.exists())
        self.assertNotRegex(mux.output, "Traceback|socket cannot be removed")

    def test_existing_log_keeps_its_owner(self) -> None:
        own = self.folder / "own.log"
        own.touch()
        rules = self.folder / "own.ini"
        rules.write_text(f"[txmux]\nuser = nobody\naccess_log = {own}\n{_RULES}")
        twist = Twist("--rules", rules)
        twist.child.wait_for("Starting reactor")
        twist.stop()
        self.assertEqual(own.stat().st_uid, 0)

    def test_without_proc(self) -> None:
        """All works where /proc is not mounted; where root cannot do without, it says so."""
        mux = Service(self.folder, _RULES, "workers = 2", before=_NO_PROC, admin=True)
        self.addCleanup(mux.kill_all)
        said = mux.reload(("workers = 2", "workers = 3"))
        self.assertEqual(said, "rules reloaded: workers of [txmux] changed")
        mux.upgrade()
        workers = mux.api("status")["workers"]
        sandboxed = [one["sandbox"] for one in workers if not one["retiring"]]
        self.assertEqual(sandboxed, [landlock.abi() > 0] * 3)
        mux.stop()
        missing = "/proc is not mounted: "
        os.chown(self.folder, _NOBODY.pw_uid, -1)
        rules, admin = self.folder / "rules.ini", self.folder / "admin.sock"
        rules.write_text(f"[txmux]\nadmin = unix:{admin}\n{_RULES}")
        rules.chmod(0o644)
        done = run(_NO_PROC[0], *_NO_PROC[1:], *twist_command(), "txmux", "--rules", rules)
        (line,) = done.stderr.decode().splitlines()
        self.assertIn(f"admin: cannot listen at unix:{admin}: {missing}", line)
        self.assertEqual(done.returncode, 1)
        os.chown(self.folder, 0, -1)
        rules.write_text(f"[txmux]\nuser = nobody\n{_RULES}")
        options = ("txmux", "--pidfile", self.folder / "pid", "--rules", rules)
        done = run(_NO_PROC[0], *_NO_PROC[1:], *twist_command(), *options)
        self.assertIn(f"--pidfile {self.folder}/pid: {missing}".encode(), done.stdout)

    def test_twistd(self) -> None:
        """No process stays root of a service whose user is that of ``twistd --uid``."""
        rules = self.folder / "rules.ini"
        rules.write_text(f"[txmux]\nworkers = 2\n{_RULES}")
        command = [*python_for_everybody(), *_TWISTD, f"--rundir={self.folder}"]
        child = Child(*command, "txmux", "--rules", rules)
        self.addCleanup(child.end)
        child.wait_for("serving with 2 worker")
        found = proc.family_of(child.pid)
        self.assertEqual(len(found), 4)
        for pid in found:
            self.assert_nobody(pid)

    def test_tac(self) -> None:
        """The user may be that of twistd already."""
        rules = self.folder / "rules.ini"
        tac = self.folder / "service.tac"
        tac.write_text(
            "from twisted.application.service import Application\nfrom txmux import MuxService\n"
            f"application = Application('x')\nMuxService.from_file({str(rules)!r}).setServiceParent(application)\n"
        )
        for user, said in (
            ("nobody", "set uid/gid"),
            ("daemon", "only root can become 'daemon'; start it as root, or remove the key if"),
        ):
            rules.write_text(f"[txmux]\nuser = {user}\n{_RULES}")
            child = Child(*_TWISTD, f"--rundir={self.folder}", "--python", str(tac))
            self.addCleanup(child.end)
            child.wait_for("listening on")
            child.wait_for(said)
            child.end()
            self.assertEqual("Traceback" in child.output, user == "daemon")


_KEEPS = """
import ctypes, socket, sys
from txmux.processes.starter import main

assert ctypes.CDLL(None).prctl(28, 4) == 0  # PR_SET_SECUREBITS to SECBIT_NO_SETUID_FIXUP, prctl(2)
main(socket.socket(fileno=int(sys.argv[1])))
"""


class AccountTests(SynchronousTestCase):
    def account(self, settings: str) -> UserAccount | None:
        return account_of(parse(f"[txmux]\n{settings}\n{_RULES}", "x.ini"))

    def test_no_account_without_the_key(self) -> None:
        """And no privilege is needed for the user that this process is; another one needs root."""
        self.assertIsNone(self.account("workers = 1"))
        account = self.account(f"user = {os.getuid()}\ngroup = {os.getgid()}")
        assert account is not None
        self.assertTrue(account.is_current)
        self.assertFalse(account.become())
        self.assertEqual(account.owner, (os.getuid(), os.getgid()))
        pretend_user(self, 4711)
        error = self.assertRaises(AccountError, self.account, "user = nobody")
        self.assertIn("this process is user 4711, and only root can become 'nobody'", str(error))

    def test_names_and_numbers(self) -> None:
        """Users and groups have names and numbers; a number needs no entry in the list of users if it has a group."""
        require_root()
        nobody = UserAccount("nobody", _NOBODY.pw_uid, _NOBODY.pw_gid)
        self.assertEqual(self.account("user = nobody"), nobody)
        by_number = self.account(f"user = {_NOBODY.pw_uid}")
        self.assertEqual(by_number, UserAccount(str(_NOBODY.pw_uid), *nobody.owner))
        other = self.account("user = 51234\ngroup = 51235")
        self.assertEqual(other, UserAccount("51234", 51234, 51235))
        for settings in ("user = 51234", "user = 4294967295\ngroup = 1"):
            error = self.assertRaises(AccountError, self.account, settings)
            self.assertIn("there is no user", str(error))

    def test_becoming(self) -> None:
        """Groups go first, and a process that could go back is not let on."""
        done: list[tuple[str, object]] = []
        pretend_user(self, 0)
        self.patch(os, "setgroups", lambda groups: done.append(("groups", list(groups))))
        self.patch(os, "setgid", lambda gid: done.append(("gid", gid)))
        # These would be done to the process of the tests.
        self.patch(account, "_leave_session_keyring", lambda: None)
        self.patch(account, "_drop_capabilities", lambda: None)
        groups = [("groups", [51235]), ("gid", 51235)]
        went_back = [*groups, ("uid", 51234), ("uid", 0)]
        unable = mock.Mock(side_effect=OSError(1, "Operation not permitted"))
        for setuid, message, changes in (
            (lambda uid: done.append(("uid", uid)), "could go back to root", went_back),
            (unable, "Operation not permitted", groups),
        ):
            self.patch(os, "setuid", setuid)
            done.clear()
            error = self.assertRaises(AccountError, UserAccount("x", 51234, 51235).become)
            self.assertIn(message, str(error))
            self.assertEqual(done, changes)

    def test_keeps_capabilities(self) -> None:
        """They are given up also where the system would leave them, so that no worker can become root again."""
        require_root()
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with own, other:
            command = [sys.executable, "-c", _KEEPS, str(other.fileno())]
            nobody = {"user": "nobody", "uid": _NOBODY.pw_uid, "gid": _NOBODY.pw_gid}
            for asked in ({"kind": "become", **nobody}, {"kind": "ping", "ask": 3}):
                own.send(json.dumps(asked).encode() + b"\n")
            own.settimeout(PATIENCE)
            with subprocess.Popen(command, pass_fds=[other.fileno()]) as child:
                answer = {"kind": "answer", "to": 3, "value": None}
                self.assertEqual(json.loads(own.recv(100)), answer)
                self.assertEqual(ids_of(child.pid)["Cap"], [0, 0, 0])
                self.assertEqual({*ids_of(child.pid)["Uid"]}, {_NOBODY.pw_uid})
                own.shutdown(socket.SHUT_WR)
