"""What a process that has clients cannot do any more, whatever code runs in it, and which processes parse bytes of clients."""

import ast
import fcntl
import json
import os
import pwd
import re
import resource
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.processes import get, post, text_of
from tests.processes.nosy_matcher import ATTEMPTS
from tests.processes.running import use_plugin
from tests.processes.test_privileges import require_root, shown
from tests.support.changes import lack_landlock
from tests.support.kit import (
    Identity,
    Service,
    change_environment,
    eventually,
    leave_unmeasured,
    make_authority,
    make_folder,
    run,
    set_limits,
)
from tests.support.proc import halted, named, open_files, starter_of
from tests.support.refusals import expected_refusals
from tests.test_structure import parsed
from txmux.processes.worker import landlock
from txmux.processes.worker.sandbox import SandboxError, sandbox_of
from txmux.processes.worker.seccomp import MACHINES
from txmux.rules.reading.parser import parse

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
BY_BOTH = frozenset(("remove", "link", "execute", "admin_child", "admin_orphan", "admin_ended"))
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
    before = len(mux.output)
    with mux.connect() as client:
        client.sendall(b"x")
        client.recv(1)
    eventually(lambda: "tried all" in mux.output[before:], "the plugin has tried all")
    return dict(re.findall(r"tried (\w+): (\w+)", mux.output[before:]))


@pytest.mark.by_turns(each=True)
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
        """A plugin reads, writes and executes nothing, itself or by others, and can gain no privileges; nor can it where there is no key."""
        mux = self.run_service("sandbox = yes\nworkers = 1")
        self.assert_confined(mux)
        self.assert_privileges(mux, "1")
        # Workers that are started later are confined, too.
        mux.reload(("workers = 1", "workers = 2"))
        self.assert_privileges(mux, "1", "1")
        for pid in mux.workers:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: mux.output.count("serving with") > 1, "others have their places")
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
        refused = "no filter of system calls in the sandbox: Operation not permitted"
        for constant, value, said, less in (
            ("landlock._SCOPES", 1000, "", {"has_scope": False}),
            ("seccomp.MACHINES", {}, "", {"has_filter": False}),
            # As in a container that forbids it: files are still restricted.
            ("seccomp._install", _FAIL, f"warn  worker 1: {refused}", {"has_filter": False}),
        ):
            set_limits(self, {f"{_WORKER}.{constant}": value})
            mux = self.run_service()
            mux.child.wait_for(said)
            self.assert_confined(mux, **less)
            mux.stop()
        status, text = self.required(self.rules)
        self.assertIn(b"[txmux] sandbox: cannot create one: Operation not permitted", text)
        self.assertNotEqual(status, 0)

    def test_refused_calls(self) -> None:
        """Each is logged once, with its number and its name, and needs attention; no worker has what could let another one's calls pass."""
        if os.uname().machine not in MACHINES:
            raise SkipTest("there is no filter for this machine")
        mux = self.run_service("workers = 2")

        def logged() -> list[str]:
            return re.findall(r"the sandbox has refused system call (.*)", mux.output)

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
        self.assertNotIn("refused", f"{self.attention()} {mux.output}")

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
        require_root()
        self.assert_confined(self.run_service("workers = 2\nuser = nobody"))

    def test_renewed(self) -> None:
        """With a user, a renewed certificate is seen in a folder that only root may look into; one that cannot be read is told of."""
        require_root()
        set_limits(self, {f"{_WORKER}.process._PATIENCE": 0.5})
        private = self.folder / "private"
        private.mkdir(mode=0o700)
        self.site = self.site.rename(private / "site.pem")
        mux = self.run_service("user = nobody", RULES.format(site=self.site))
        self.assertEqual(shown(mux.port), "old.example")
        self.authority.issue("new.example").write(self.site, key=True)
        eventually(lambda: shown(mux.port) == "new.example", "clients get the new one")
        self.site.unlink()
        third = self.authority.issue("third.example").write(self.folder / "x", key=True)
        self.site.symlink_to(third)
        os.lchown(self.site, 65534, -1)  # a link that the helper does not follow

        def is_told_of() -> bool:
            shown(mux.port)
            return "neither root's" in str(self.attention())

        eventually(is_told_of, "it is told of")
        mux.child.wait_for("neither root's")
        self.assertEqual(mux.output.count("neither root's"), 1)
        self.assertEqual(shown(mux.port), "new.example")
        with halted(named(mux.pid, "helper")):
            eventually(
                lambda: bool(shown(mux.port)) and "does not answer" in mux.output,
                "the worker goes on without it",
            )
        self.assertNotIn("is killed", mux.output)

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


@pytest.mark.by_turns(each=True)
class WithoutLandlockTests(SynchronousTestCase):
    def test_yes_is_an_error_with_a_remedy(self) -> None:
        """Otherwise it is off. The kernel has none, or a filter that does not let it be used."""
        lack_landlock(self)
        text = "[txmux]\n{}\n[listen a]\nendpoint = :0\n".format
        with self.assertRaisesRegex(SandboxError, "write sandbox = auto"):
            sandbox_of(parse(text("sandbox = yes"), "x"))
        for settings in ("workers = 2\nuser = nobody", "sandbox = off"):
            self.assertEqual(sandbox_of(parse(text(settings), "x")), "off")


_NOBODY = pwd.getpwnam("nobody")
_STARTED_BY = """
import ctypes, fcntl, os, resource, sys, termios
terminal, join_session, add_key = sys.argv[1:4]
os.setsid()
fcntl.ioctl(os.open(terminal, os.O_RDWR), termios.TIOCSCTTY, 0)
libc = ctypes.CDLL(None, use_errno=True)
keyctl = lambda *words: libc.syscall(*map(ctypes.c_long, (int(join_session), *words)))
assert keyctl(1, 0) > 0
text = lambda value: ctypes.c_char_p(value)
key = libc.syscall(ctypes.c_long(int(add_key)), text(b"user"), text(b"txmux-test"), text(b"precious"),
    ctypes.c_long(8), ctypes.c_long(-3))
assert key > 0
assert keyctl(5, key, 0x3F000000) == 0  # for those that possess it
os.setgroups([0, 4])
header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(header, sets) == 0
sets[2] = 1  # CAP_CHOWN, inheritable
assert libc.capset(header, sets) == 0
assert libc.prctl(28, 4, 0, 0, 0) == 0  # PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP
os.nice(3)
os.umask(0o27)
resource.setrlimit(resource.RLIMIT_STACK, (4194304, 4194304))
os.dup2(os.open("/etc/shadow", os.O_RDONLY), 9)
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("200")
os.environ["NOSY_KEY"] = str(key)
os.execv(sys.argv[4], sys.argv[4:])
"""


class InheritedTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_root()
        if os.uname().machine not in MACHINES:
            raise SkipTest("the numbers of calls are not known for this machine")
        self.folder, _, self.rules = nosy_rules(self)
        numbers = MACHINES[os.uname().machine][0]
        own, terminal = os.openpty()
        self.addCleanup(os.close, own)
        self.addCleanup(os.close, terminal)
        self.before = (
            *(sys.executable, "-c", _STARTED_BY, os.ttyname(terminal)),
            *(str(numbers["keyctl"]), str(numbers["add_key"])),
        )

    def run_service(self, settings: str = "") -> Service:
        settings += f"\nuser = nobody\nadmin = unix:{self.folder}/admin.sock"
        mux = Service(self.folder, self.rules, settings, before=self.before, program="run")
        self.addCleanup(mux.stop)
        return mux

    def test_keys(self) -> None:
        """A key that only processes of root's session may read is none of the service's, even without a sandbox; the environment is kept."""
        mux = self.run_service("sandbox = off")
        self.assertEqual(attempts(mux)["root_key"], "EACCES")

    def test_process(self) -> None:
        mux = self.run_service()
        (pid,) = mux.workers
        folder = Path("/proc", str(pid))
        lines = (line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        status = {name: " ".join(value.split()) for name, value in lines}
        # Given up.
        self.assertEqual(status["Uid"], " ".join([str(_NOBODY.pw_uid)] * 4))
        self.assertEqual(status["Gid"], " ".join([str(_NOBODY.pw_gid)] * 4))
        self.assertEqual({*status["Groups"].split()}, {str(_NOBODY.pw_gid)})
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[kind], 16), 0, kind)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
        _, _, session, terminal = (folder / "stat").read_text().rpartition(") ")[2].split()[1:5]
        self.assertNotEqual(session, str(os.getsid(mux.pid)))
        self.assertEqual(terminal, "0")
        self.assertEqual(
            {name for name in open_files(pid) if name.startswith("/") and ":" not in name},
            {"/dev/null", f"/proc/{pid}/fd", str(mux.log)},
        )
        self.assertEqual((folder / "environ").stat().st_uid, 0)  # no core dump, and no debugger
        # Kept.
        self.assertEqual(status["Umask"], "0027")
        self.assertEqual((folder / "oom_score_adj").read_text(), "500\n")  # 300 more
        priorities = {os.getpriority(os.PRIO_PROCESS, one) for one in (pid, mux.pid)}
        self.assertEqual(len(priorities), 1)
        self.assertRegex((folder / "limits").read_text(), r"(?m)^Max stack size +4194304 ")
        its = folder.with_name(str(mux.pid))
        for name in ("cgroup", "personality"):
            self.assertEqual((folder / name).read_text(), (its / name).read_text())


LISTEN = "[listen public]\nendpoint = 127.0.0.1:0\n"
SPYING = "[route spying]\nmatch = spying\nbackend = 127.0.0.1:9\n"
NO, YES = {"spying": "no"}, {"spying": "match"}


def says(explained: Any) -> dict[str, str]:
    (listener,) = explained["streams"][0]["listeners"]
    return {route["route"]: route["says"] for route in listener["routes"]}


ASKING = frozenset(
    {
        *("Datagrams", "Detection", "Detector", "FlowDetection", "Peeked", "Tracer"),
        *("captured", "decide_at_once", "explain", "explain_in_steps", "start_detection"),
        "matcher_of",
    }
)
"""Names by which code asks matchers about bytes; what has them itself is `DEFINING`."""
DEFINING = ("detection/", "interfaces.py", "matchers/", "testing/", "wire/")
WORKER = "a worker"
OWN_BYTES = "any: it has written these bytes itself"
CALLERS = {
    "cli/explain.py": "the command's own, which confines itself first",
    "client/configuration.py": WORKER,
    "control/worker_answers.py": WORKER,
    "features/acme/challenges.py": WORKER,
    "features/ech/warnings.py": OWN_BYTES,
    "features/misdirected/check.py": OWN_BYTES,
    "features/misdirected/places.py": f"{WORKER}; by misdirected/check, see there",
    "features/trial/comparing.py": WORKER,
    "features/trial/memory.py": WORKER,
    "features/tunnels/stage.py": WORKER,
    "rules/lint/patterns.py": OWN_BYTES,
    "rules/tracing.py": "that of features/trial/memory or cli/explain",
    "tcp/answers.py": WORKER,
    "tcp/stage.py": WORKER,
    "tcp/stages/connecting.py": WORKER,
    "tcp/stages/peeking.py": WORKER,
    "tcp/stages/turning_away.py": WORKER,
    "udp/flow.py": WORKER,
}
"""What asks a detector, or a matcher, about bytes, and the process in which it does: none with rights that a worker lacks parses a client's."""


def asks(code: ast.Module) -> bool:
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("txmux."):
            names = {alias.name for alias in node.names}
        else:
            names = {getattr(getattr(node, "func", None), "attr", "")} - {"explain"}
        if names & ASKING:
            return True
    return False


@pytest.mark.by_turns(each=True)
class CallersTests(SynchronousTestCase):
    def test_callers(self) -> None:
        """Each has a row that names its process; `ConfinedParsingTests` shows by a matcher with a hole that this is so."""
        having = rf"\b({'|'.join(ASKING)})\b"
        found = {str(path) for path, code in parsed(having).items() if asks(code)}
        callers = {path for path in found if not path.startswith((*DEFINING, "txmux_convert"))}
        self.assertEqual(callers, CALLERS.keys())

    def test_command(self) -> None:
        """The rules demand a sandbox of the service; `txmux explain` can do without, also on another machine."""
        leave_unmeasured(self)
        rules = make_folder(self) / "rules.ini"
        rules.write_text(f"[txmux]\nsandbox = yes\n{LISTEN}")
        code = (
            "from txmux.processes.worker import landlock\n"
            "def missing(): raise OSError(95, 'Operation not supported')\n"
            "landlock.give_up_privileges = missing\n"
            "from txmux.cli import main\n"
            f"raise SystemExit(main(['explain', '--text', 'x', {str(rules)!r}]))\n"
        )
        done = run(sys.executable, "-c", code)
        self.assertEqual(done.returncode, 0, done.stderr)


@pytest.mark.by_turns(each=True)
class ConfinedParsingTests(SynchronousTestCase):
    """The matcher of these rules takes a client if the process in which it is asked may read a secret."""

    def setUp(self) -> None:
        if not landlock.abi():
            raise SkipTest("this kernel has no Landlock")
        leave_unmeasured(self)
        self.folder = make_folder(self)
        self.folder.chmod(0o755)
        (self.folder / "secret").write_text("precious")
        use_plugin(self, "spying")
        change_environment(self, SPYING_FOLDER=str(self.folder))
        self.admin = self.folder / "admin.sock"

    def test_trial_and_explained(self) -> None:
        # `reload --try`, and what `watch_rules` finds, ask the workers where their clients would go.
        settings = f"admin = unix:{self.admin}\nworkers = 2\nremember = 10\nwatch_rules = 1s\nwatch_rules_limit = 0%"
        mux = Service(self.folder, LISTEN, settings, program="run")
        self.addCleanup(mux.stop)
        with mux.connect() as client:
            client.sendall(b"spy")
            client.recv(1)
        eventually(lambda: get(self.admin, "/api/recent"), "its end is reported")
        mux.file.write_text(mux.file.read_text() + SPYING)
        tried = post(self.admin, "/api/reload/try")
        self.assertEqual((tried["clients"], tried["moves"]), (1, []))
        eventually(
            lambda: "route spying" in str(get(self.admin, "/api/rules")),
            "the rules are in force, since nobody would go elsewhere",
        )
        # The API and the page explain by a worker, and name what an unrecognised client speaks by one.
        self.assertEqual(says(post(self.admin, "/api/explain", {"text": "spy"})), NO)
        page = text_of(self.admin, "/?explain=737079")
        self.assertIn("match = payload text=spy", page)
        self.assertNotIn('data-copy="match = spying"', page)
        self.assertRegex(page, r"spying +no")

    def explain(self, *options: str | Path, settings: str = "") -> dict[str, str]:
        rules = self.folder / "rules.ini"
        rules.write_text(f"[txmux]\n{settings}\n{LISTEN}{SPYING}")
        done = run(sys.executable, "-m", "txmux", "explain", "--json", rules, *options)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return says(json.loads(done.stdout))

    def test_command(self) -> None:
        """`txmux explain` confines itself once it has opened what it was given, also a capture."""
        self.assertEqual(self.explain("--text", "spy"), NO)
        (self.folder / "bytes").write_bytes(b"spy")
        self.assertEqual(self.explain("--file", self.folder / "bytes"), NO)
        capture = self.folder / "clients.pcap"
        capture.write_bytes(captured(b"spy"))
        self.assertEqual(self.explain("--pcap", capture), NO)
        self.assertEqual(self.explain("--text", "spy", settings="sandbox = off"), YES)


def captured(data: bytes) -> bytes:
    """Write a capture of raw IPv4 with one segment of a client."""
    tcp = struct.pack("!HHIIBBHHH", 40000, 443, 1, 0, 5 << 4, 0x18, 1024, 0, 0) + data
    ends = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, *ends) + tcp
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    return head + struct.pack("<IIII", 0, 0, len(ip), len(ip)) + ip
