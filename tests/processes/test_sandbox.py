"""What a process that has clients cannot do any more, whatever code runs in it; and what it can, all the same."""

import fcntl
import json
import os
import re
import resource
import signal
import socket
import sys
from pathlib import Path
from unittest import SkipTest

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.processes import get
from tests.processes.nosy_matcher import ATTEMPTS
from tests.processes.running import set_limits, use_plugin
from tests.processes.test_privileges import shown
from tests.support.certificates import Identity, make_authority
from tests.support.changes import change_environment
from tests.support.kit import Service, eventually, leave_unmeasured, make_folder, run
from tests.support.proc import halted, named, open_files, starter_of
from tests.support.refusals import expected_refusals
from txmux.processes.worker import landlock
from txmux.processes.worker.sandbox import SandboxError, sandbox_of
from txmux.processes.worker.seccomp import MACHINES
from txmux.rules.reading.parser import parse

pytestmark = pytest.mark.by_turns(each=True)

RULES = """
[listen public]
endpoint = 127.0.0.1:0

[route secure]
match = tls
terminate_tls = {site}

[route nosy]
match = nosy
backend = close
"""

BY_LANDLOCK = frozenset(
    {
        *("passwords", "read", "beside", "list", "thread", "named", "helper", "parent", "memory"),
        *("write", "append", "truncate_by_reading", "admin"),
    }
)
BY_BOTH = frozenset(
    {*("remove", "link", "execute"), *("admin_child", "admin_orphan", "admin_ended")}
)
"""The filter of system calls refuses these first, and gives another error."""
BY_FILTER = ATTEMPTS.keys() - BY_LANDLOCK - BY_BOTH - {"abstract", "blocks_again"}
BY_SCOPE = frozenset({"starter", "supervisor", "supervisor_orphan", "abstract"})
"""Since Linux 6.12."""

_FAIL = "__import__('unittest.mock').mock.Mock(side_effect=PermissionError(1, 'Operation not permitted'))"
_WORKER = "processes.worker"


def nosy_rules(test: SynchronousTestCase) -> tuple[Path, Identity, str]:
    """Return a folder with what the plugin of rules tries to reach, the authority of their certificate, and the rules."""
    if not landlock.abi():
        raise SkipTest("this kernel has no Landlock")
    leave_unmeasured(test)
    test.addCleanup(expected_refusals)
    folder = make_folder(test)
    folder.chmod(0o755)
    (use_plugin(test, "nosy") / "token").write_text("precious")
    change_environment(test, NOSY_FOLDER=str(folder))
    for name in ("secret", "old"):
        (folder / name).write_text("precious")
    authority = make_authority()
    authority.issue("old.example").write(folder / "site.pem", key=True)
    return folder, authority, RULES.format(site=folder / "site.pem")


def attempts(mux: Service) -> dict[str, str]:
    before = len(mux.child.output)
    with mux.connect() as client:
        client.sendall(b"x")
        client.recv(1)
    eventually(lambda: "tried all" in mux.child.output[before:], "the plugin has tried all")
    return dict(re.findall(r"tried (\w+): (\w+)", mux.child.output[before:]))


class SandboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder, self.authority, self.rules = nosy_rules(self)
        self.site = self.folder / "site.pem"

    def run_service(self, settings: str = "", rules: str = "") -> Service:
        settings += f"\nadmin = unix:{self.folder}/admin.sock:mode=666"
        mux = Service(self.folder, rules or self.rules, settings, program="run")
        self.addCleanup(mux.stop)
        return mux

    def assert_confined(
        self,
        mux: Service,
        *,
        has_scope: bool = landlock.abi() >= 6,
        has_filter: bool = os.uname().machine in MACHINES,
    ) -> None:
        with socket.socket(socket.AF_UNIX) as outside:
            outside.bind(f"\0{self.folder}")
            outside.listen()
            tried = attempts(mux)
        refused = dict.fromkeys(BY_LANDLOCK | BY_BOTH, "EACCES")
        if has_scope:
            refused |= dict.fromkeys(BY_SCOPE, "EPERM")
        if has_filter:
            refused |= dict.fromkeys(BY_FILTER | BY_BOTH, "EPERM")
        refused["blocks_again"] = "done"
        self.assertEqual({name: tried[name] for name in refused}, refused)
        self.assertEqual((self.folder / "secret").read_text(), "precious")
        self.assertTrue((self.folder / "old").exists())
        self.assertFalse((self.folder / "made").exists())

    def assert_privileges(self, mux: Service, *expected: str) -> None:
        def found() -> list[str]:
            texts = [Path(f"/proc/{pid}/status").read_text() for pid in mux.workers]
            return [re.findall(r"NoNewPrivs:\t(\d)", text)[0] for text in texts]

        # What the plugin has started may be about to end.
        eventually(lambda: found() == [*expected], f"workers have {expected}")

    def attention(self) -> list[str]:
        items = get(self.folder / "admin.sock", "/api/status")["attention"]
        return [item["text"] for item in items]

    def test_breaking_out(self) -> None:
        """A plugin reads, writes and executes nothing, itself or by others, and can gain no privileges; nor can it where there is no key.

        Workers that are started later are confined, too.
        """
        mux = self.run_service("sandbox = yes\nworkers = 1")
        self.assert_confined(mux)
        self.assert_privileges(mux, "1")
        mux.reload(("workers = 1", "workers = 2"))
        self.assert_privileges(mux, "1", "1")
        for pid in mux.workers:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: mux.child.output.count("serving with") > 1, "others have their places")
        self.assertEqual(shown(mux.port), "old.example")
        self.assert_confined(mux)
        self.assert_privileges(mux, "1", "1")
        # An upgrade executes the program outside of the sandbox, so that it may name any file; its workers are confined again.
        for number in range(2):
            site = self.folder / f"{number}.pem"
            self.authority.issue(f"site{number}.example").write(site, key=True)
            mux.edit(("terminate_tls = .*", f"terminate_tls = {site}"))
            mux.upgrade()
            self.assertEqual(shown(mux.port), f"site{number}.example")
        self.assert_confined(mux)

    def test_without_scopes_or_filter(self) -> None:
        """Landlock restricts neither signals nor abstract sockets before Linux 6.12; without a filter of system calls, the API is still refused to all that a worker starts."""
        for constant, value, less in (
            ("landlock._SCOPES", 1000, {"has_scope": False}), ("seccomp.MACHINES", {}, {"has_filter": False}),
        ):  # fmt: skip
            set_limits(self, {f"{_WORKER}.{constant}": value})
            mux = self.run_service()
            self.assert_confined(mux, **less)
            mux.stop()

    def test_refused_calls(self) -> None:
        """Each is logged once, with its number and its name, and needs attention; no worker has what could let another one's calls pass."""
        if os.uname().machine not in MACHINES:
            raise SkipTest("there is no filter for this machine")
        mux = self.run_service("workers = 2")

        def logged() -> list[str]:
            return re.findall(r"the sandbox has refused system call (.*)", mux.child.output)

        attempts(mux)
        numbers = MACHINES[os.uname().machine][0]
        expected = {
            f"{numbers['bpf']} (bpf)",
            f"{numbers['fcntl']} (fcntl: …, {fcntl.F_SETSIG}, 9)",
            f"{numbers['socket']} (socket: 40, {1 | socket.SOCK_CLOEXEC}, 0)",
        }
        eventually(lambda: expected <= {*logged()}, "they are logged")
        attempts(mux)
        # A process of the starter's answers in turn, so that those of the second time have come, too.
        [text] = [text for text in self.attention() if "refused" in text]
        self.assertRegex(text, r"^worker [12]: the sandbox has refused system calls \d+ \(.*more$")
        self.assertEqual(sorted(set(logged())), sorted(logged()))
        held = {pid: "anon_inode:seccomp notify" in open_files(pid) for pid in mux.workers}
        self.assertEqual([*held.values()], [False, False])
        self.assertIn("anon_inode:seccomp notify", open_files(starter_of(mux.pid)))

    def test_log_on_a_disk_that_is_full(self) -> None:
        """A line that fits in part ends there; what the sandbox keeps a worker from doing about it is no sign of an attack."""
        mux = self.run_service("workers = 1")
        log = mux.log
        (worker,) = mux.workers
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (5, resource.RLIM_INFINITY))
        for lost in ("1 line lost", "2 lines lost", "3 lines lost"):
            mux.connect().close()
            eventually(lambda: lost in str(self.attention()), "it is lost")  # noqa: B023
        self.assertEqual(log.read_text(), '{"tim')
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        mux.connect().close()
        eventually(lambda: "lost" not in str(self.attention()), "it is over")
        torn, whole = log.read_text().splitlines()
        self.assertEqual(torn, '{"tim')
        self.assertEqual(json.loads(whole)["listener"], "public")
        self.assertNotIn("refused", f"{self.attention()} {mux.child.output}")

    def test_files_that_change(self) -> None:
        """A renewed certificate is read; a reload may name a certificate, a log and a UNIX socket in other folders."""
        mux = self.run_service()
        self.assertEqual(shown(mux.port), "old.example")
        renewed = self.authority.issue("renewed.example").write(self.folder / "new.pem", key=True)
        renewed.replace(self.site)
        eventually(lambda: shown(mux.port) == "renewed.example", "the new certificate is shown")
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        other = self.authority.issue("other.example").write(elsewhere / "other.pem", key=True)
        moved = mux.log.rename(mux.log.with_name("moved.log"))
        mux.reload((str(self.site), str(other)))
        self.assertEqual(shown(mux.port), "other.example")
        eventually(lambda: "secure" in mux.log.read_text(), "the new file of the log has a line")
        eventually(lambda: "secure" in moved.read_text(), "the old one has those from before")
        log, listening = elsewhere / "access.log", elsewhere / "public.sock"
        mux.reload((str(mux.log), str(log)))
        mux.reload(("127.0.0.1:0", f"127.0.0.1:0\n    unix:{listening}"))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(listening))
        eventually(lambda: str(listening) in log.read_text(), "the log elsewhere has a line")
        mux.reload((f"\n    unix:{listening}", ""))
        eventually(lambda: not listening.exists(), "the file of the socket is removed")
        self.assert_confined(mux)

    def test_confined_as_another_user(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
        self.assert_confined(self.run_service("workers = 2\nuser = nobody"))

    def test_renewed(self) -> None:
        """With a user, a renewed certificate is seen in a folder that only root may look into; one that cannot be read is told of."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
        set_limits(self, {f"{_WORKER}.process._PATIENCE": 0.5})
        private = self.folder / "private"
        private.mkdir(mode=0o700)
        self.site = self.site.rename(private / "site.pem")
        mux = self.run_service("user = nobody", RULES.format(site=self.site))
        self.assertEqual(shown(mux.port), "old.example")
        self.authority.issue("new.example").write(self.site, key=True)
        eventually(lambda: shown(mux.port) == "new.example", "clients get the new one")
        self.site.unlink()
        self.site.symlink_to(
            self.authority.issue("third.example").write(self.folder / "x", key=True)
        )
        os.lchown(self.site, 65534, -1)  # a link that the helper does not follow

        def is_told_of() -> bool:
            shown(mux.port)
            return "neither root's" in str(self.attention())

        eventually(is_told_of, "it is told of")
        mux.child.wait_for("neither root's")
        self.assertEqual(mux.child.output.count("neither root's"), 1)
        self.assertEqual(shown(mux.port), "new.example")
        with halted(named(mux.pid, "helper")):
            eventually(
                lambda: bool(shown(mux.port)) and "does not answer" in mux.child.output,
                "the worker goes on without it",
            )
        self.assertNotIn("is killed", mux.child.output)

    def test_cannot_be_switched_while_the_service_runs(self) -> None:
        mux = self.run_service("sandbox = off")
        tried = attempts(mux)
        self.assertEqual((tried["named"], tried["admin"]), ("done", "EACCES"))
        told = mux.reload(("sandbox = off", "sandbox = yes"))
        self.assertIn("sandbox: cannot change while the service runs", told)

    def test_no_landlock(self) -> None:
        """With `auto` workers serve without one, if the kernel has none or refuses it, and the log says so."""
        for constant, value, said in (
            ("restrict", _FAIL, "warn  worker 1: no sandbox: Operation not permitted"),
            ("abi", "lambda: 0", "workers have no sandbox: this kernel has no Landlock, or"),
        ):
            set_limits(self, {f"{_WORKER}.landlock.{constant}": value})
            mux = self.run_service()
            mux.child.wait_for(said)
            self.assertNotEqual(attempts(mux)["named"], "EACCES")
            if constant == "abi":
                self.assert_privileges(mux, "0")
            mux.stop()

    def test_kernel_refuses_the_filter(self) -> None:
        """As in a container that forbids it: files are still restricted."""
        set_limits(self, {f"{_WORKER}.seccomp._install": _FAIL})
        mux = self.run_service()
        mux.child.wait_for(
            "warn  worker 1: no filter of system calls in the sandbox: Operation not permitted"
        )
        self.assert_confined(mux, has_filter=False)
        status, said = self.required(self.rules)
        self.assertIn(b"[txmux] sandbox: cannot create one: Operation not permitted", said)
        self.assertNotEqual(status, 0)

    def required(self, rules: str) -> tuple[int, bytes]:
        """Run a service that is not to be without a sandbox, and return what comes of it."""
        file = self.folder / "rules.ini"
        file.write_text(f"[txmux]\nsandbox = yes\n{rules}")
        done = run(sys.executable, "-m", "txmux", "run", file)
        return done.returncode, done.stderr

    def test_endpoint_of_another_kind(self) -> None:
        """An endpoint that only Twisted can open may name files of its own: there is none, and `yes` is refused with what would do."""
        pem = self.site
        endpoint = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
        rules = self.rules.replace("127.0.0.1:0", endpoint)
        self.assert_privileges(self.run_service("", rules), "0")
        status, said = self.required(rules)
        self.assertIn(b": a confined worker cannot open an endpoint of type 'ssl'; ", said)
        self.assertIn(b", or 'sandbox = auto' in [txmux]\n", said)
        self.assertEqual(status, os.EX_CONFIG)


class WithoutLandlockTests(SynchronousTestCase):
    def test_yes_is_an_error_with_a_remedy(self) -> None:
        """Otherwise it is off. The kernel has none, or a filter that does not let it be used."""
        self.patch(landlock, "abi", lambda: 0)
        text = "[txmux]\n{}\n[listen a]\nendpoint = :0\n".format
        with self.assertRaisesRegex(SandboxError, "write sandbox = auto"):
            sandbox_of(parse(text("sandbox = yes"), "x"))
        for settings in ("workers = 2\nuser = nobody", "sandbox = off"):
            self.assertEqual(sandbox_of(parse(text(settings), "x")), "off")
