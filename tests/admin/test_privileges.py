"""The endpoints of a service that root has started and that is nobody's by then."""

import shutil
import sys

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.processes import ask, get, post
from tests.interop.children import eventually, leave_unmeasured, run
from tests.processes import test_privileges
from tests.processes.test_privileges import free_low_port, python_for_everybody, require_root
from tests.support.kit import Service, change_environment, make_folder
from tests.support.proc import is_gone

pytestmark = pytest.mark.whole

_RULES = "[listen public]\nendpoint = 127.0.0.1:0\n"

_WITHOUT_IMPORTS = """
import sys
from twisted.internet import reactor
from txmux.processes.service import MuxService
service = MuxService.from_file(sys.argv[1])
service.privilegedStartService()
sys.meta_path.clear()
service.startService()
print("serves")
"""
"""Starts a service that can import nothing once its sockets are open, as a user who may not read Python's files."""


class UnreadableTest(SynchronousTestCase):
    """Root's own Python, which the user of the rules may not read."""

    def test_endpoints_are_imported_before_root_is_dropped(self) -> None:
        folder = make_folder(self)
        rules = folder / "rules.ini"
        rules.write_text(f"[txmux]\nadmin = unix:{folder}/admin.sock\n{_RULES}")
        ended = run(sys.executable, "-c", _WITHOUT_IMPORTS, rules)
        self.assertEqual((ended.returncode, ended.stdout), (0, b"serves\n"), ended.stderr)


class DroppedTest(SynchronousTestCase):
    """Everything that the endpoints need is in a folder that only root may look into."""

    def setUp(self) -> None:
        require_root()
        leave_unmeasured(self)
        self.folder = make_folder(self)
        self.folder.chmod(0o755)
        shutil.chown(self.folder, "nobody")  # for the file that names the process
        self.closed = self.folder / "closed"
        self.closed.mkdir(0o700)
        self.socket, self.token = self.closed / "admin.sock", self.closed / "token"

    def start(self, settings: str) -> Service:
        before = python_for_everybody()
        mux = Service(self.folder, _RULES, f"user = nobody\n{settings}", before=before)
        self.addCleanup(mux.kill_all)
        mux.file.parent.chmod(0o755)  # a new process reads the rules itself
        self.assertNotIn(0, test_privileges.ids_of(mux.pid)["Uid"])
        return mux

    def test_sockets_low_port_and_token_file_by_the_helper(self) -> None:
        mux = self.start(f"admin = unix:{self.socket}")
        self.assertEqual(get(self.socket, "/api/status")["pid"], mux.pid)
        other = self.closed / "other.sock"
        mux.edit((str(self.socket), str(other)))
        post(self.socket, "/api/reload")
        self.assertEqual(other.stat().st_mode & 0o777, 0o660)
        self.assertEqual(get(other, "/api/status")["pid"], mux.pid)
        self.assertEqual(ask(other, "POST", "/api/reload")[1]["changes"], "nothing changed")
        port, metrics = free_low_port(self), free_low_port(self)
        keys = f"admin_token = {self.token}\nmetrics = 127.0.0.1:{metrics}"
        mux.edit((f"admin = unix:{other}", f"admin = 127.0.0.1:{port}\n{keys}"))
        told = post(other, "/api/reload")
        self.assertEqual(told["changes"], "admin, admin_token, metrics of [txmux] changed")
        self.assertEqual(self.token.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.token.stat().st_uid, 0)
        token = self.token.read_text().strip()
        self.assertEqual(ask(port, "GET", "/api/status")[0], 401)
        self.assertEqual(ask(port, "GET", "/api/status", token=token)[0], 200)
        self.assertEqual(get(metrics, "/healthz"), {"ok": True})
        self.token.write_text("another-one-that-root-has-written")
        self.assertEqual(ask(port, "POST", "/api/reload", token=token)[0], 200)
        self.assertEqual(ask(port, "GET", "/api/status", token=token)[0], 401)
        mux.stop()

    def test_tokens_are_read_again_by_the_helper(self) -> None:
        tokens = self.closed / "tokens"
        tokens.write_text("ci read the-secret-of-the-build\n")
        port = free_low_port(self)
        mux = self.start(f"admin = 127.0.0.1:{port}\nadmin_tokens = {tokens}")
        token = "the-secret-of-the-build"
        self.assertEqual(ask(port, "GET", "/api/status", token=token)[0], 200)
        tokens.write_text("ci read another-secret-of-the-build\n")
        eventually(lambda: ask(port, "GET", "/healthz", token=token)[0] == 401, "it is read again")
        token = "another-secret-of-the-build"
        self.assertEqual(ask(port, "GET", "/healthz", token=token)[0], 200)
        mux.stop()

    def test_new_process_keeps_sockets_and_helper(self) -> None:
        self.token.write_text("a-token-that-only-root-can-read")
        token = "a-token-that-only-root-can-read"
        port = free_low_port(self)
        mux = self.start(f"admin = 127.0.0.1:{port}\nadmin_token = {self.token}")
        self.assertEqual(ask(port, "POST", "/api/upgrade", token=token)[0], 200)
        mux.switched()
        eventually(lambda: is_gone(mux.before), "the old process has ended")
        self.assertEqual(ask(port, "GET", "/api/status", token=token)[1]["pid"], mux.pid)
        mux.edit((f"admin = 127.0.0.1:{port}", f"admin = unix:{self.socket}"))
        self.assertEqual(ask(port, "POST", "/api/reload", token=token)[0], 200)
        self.assertEqual(get(self.socket, "/api/status")["pid"], mux.pid)
        mux.stop()

    def test_automatic_socket_survives_reload_and_upgrade(self) -> None:
        runtime = self.folder / "run"
        runtime.mkdir(0o755)
        change_environment(self, RUNTIME_DIRECTORY=str(runtime))
        mux = self.start("")
        path = runtime / "rules.sock"
        inode = path.stat().st_ino
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        post(path, "/api/reload")
        post(path, "/api/upgrade")
        mux.switched()
        eventually(lambda: get(path, "/api/status")["pid"] == mux.pid, "the new process answers")
        post(path, "/api/reload")
        self.assertEqual(path.stat().st_ino, inode)
        mux.stop()
