"""What the workers of a service with ``user`` keep of the process that has started it, and what not."""

import os
import pwd
import sys
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.processes.test_sandbox import attempts, nosy_rules
from tests.support.proc import open_files, workers_of
from tests.support.services import Service
from txmux.processes.worker.seccomp import MACHINES

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
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
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
        (pid,) = workers_of(mux.pid)
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
        self.assertEqual(
            os.getpriority(os.PRIO_PROCESS, pid), os.getpriority(os.PRIO_PROCESS, mux.pid)
        )
        self.assertRegex((folder / "limits").read_text(), r"(?m)^Max stack size +4194304 ")
        for name in ("cgroup", "personality"):
            self.assertEqual(
                (folder / name).read_text(), Path("/proc", str(mux.pid), name).read_text()
            )
