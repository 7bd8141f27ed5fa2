"""Who is taken for a worker at the UNIX socket, whatever the service may see of it."""

import json
import subprocess
import sys
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.processes.test_privileges import require_root
from tests.support.kit import leave_unmeasured, make_folder

_SERVE = """
import json, os, socket, sys
from txmux.admin.guard import Caller
from txmux.admin.peer import mark_workers
from txmux.processes.forking import name_process

OWN = 4001
path = sys.argv[1]
listener = socket.create_server(path, family=socket.AF_UNIX)
os.chmod(path, 0o777)
clients = {
    "own": (OWN, OWN), "own of another group": (OWN, OWN + 1), "another": (OWN + 1, OWN + 1), "root": (0, 0)
}
accepted, pids = {}, []

def begin(uid, gid):
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.recv(1)
    os._exit(0)

for mark in ("", "marked ", "by an older starter "):
    for name, (uid, gid) in clients.items():
        if not (pid := os.fork()):
            for one in (listener, *accepted.values()):
                one.close()
            if mark == "marked ":
                mark_workers()
            elif mark:
                name_process("starter")
                if os.fork():
                    os.wait()
                    os._exit(0)
            begin(uid, gid)
        pids.append(pid)
        accepted[mark + name], _ = listener.accept()
os.setgroups([])
os.setgid(OWN)
os.setuid(OWN)

class Transport:
    def __init__(self, handle):
        self.getHandle, self.getHost = lambda: handle, lambda: None

print(json.dumps([name for name, one in accepted.items() if Caller.of(Transport(one)).is_worker]))
for one in accepted.values():
    one.close()
for pid in pids:
    os.waitpid(pid, 0)
"""

_JUDGE = """
import json, os, socket
from txmux.admin import peer

ours, theirs = socket.socketpair()
found = []
for mark in (lambda: None, peer.mark_workers):
    mark()
    for option in (peer._PEER_PIDFD, 9999):
        peer._PEER_PIDFD, known = option, peer._PEER_PIDFD
        found.append([peer.is_worker(ours, pid, os.geteuid()) for pid in (os.getpid(), 0)])
        peer._PEER_PIDFD = known
print(json.dumps(found))
"""


class JudgedTest(SynchronousTestCase):
    def test_kernels(self) -> None:
        """Some give no descriptor of a peer; one outside of the namespace has no number to judge by."""
        leave_unmeasured(self)
        done = subprocess.run([sys.executable, "-c", _JUDGE], capture_output=True, text=True, check=False)  # fmt: skip
        self.assertEqual(done.stderr, "")
        self.assertEqual(json.loads(done.stdout), [[False, False]] * 2 + [[True, False]] * 2)


class PeerTest(SynchronousTestCase):
    """A worker is known by its mark, even if it is another user's by now; where processes are hidden, by its user."""

    NAMES: ClassVar[list[str]] = ["own", "own of another group", "another", "root"]

    def setUp(self) -> None:
        require_root()
        leave_unmeasured(self)

    def workers(self, *before: str) -> list[str]:
        folder = make_folder(self)
        folder.chmod(0o755)
        done = subprocess.run([*before, sys.executable, "-c", _SERVE, str(folder / "admin.sock")], capture_output=True, text=True, check=False)  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        found: list[str] = json.loads(done.stdout)
        return found

    def test_seen(self) -> None:
        expected = [f"{how} {name}" for how in ("marked", "by an older starter") for name in self.NAMES]  # fmt: skip
        self.assertEqual(self.workers(), expected)

    def test_hidden(self) -> None:
        """Nobody of the service's own user is an operator unless its limits show that."""
        mounts = 'mount -t proc -o hidepid=2 proc /proc; exec "$0" "$@"'
        found = self.workers("unshare", "--mount", "sh", "-ec", mounts)
        hidden = [f"{how}own of another group" for how in ("", "marked ", "by an older starter ")]
        self.assertLessEqual({"marked own", *hidden}, {*found})
        self.assertLessEqual({*found}, {"marked own", "by an older starter own", *hidden})
