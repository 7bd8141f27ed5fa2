"""Where the service itself is reached, over its life."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, Any
from unittest import mock

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.asking import AdminCase
from tests.support.folders import make_folder
from tests.support.forks import starter
from txmux import MuxService, load
from txmux.admin import listen_addresses
from txmux.admin.listen_addresses import folders, read_token
from txmux.errors import ListenError, MuxError
from txmux.rules.problems import RulesError

if TYPE_CHECKING:
    from pathlib import Path


def mode_of(path: Path) -> int:
    """Give the mode of a file."""
    return stat.S_IMODE(path.stat().st_mode)


class SocketsTest(AdminCase):
    """Sockets of endpoints that the rules name."""

    def inode(self) -> int:
        """Tell which socket is open for ``admin``."""
        (opened,) = self.running._endpoints.store.sockets().values()
        return os.fstat(opened.fileno()).st_ino

    async def test_mode(self) -> None:
        """The file of a UNIX socket has mode 0660, or the one that is written, and is gone at the end."""
        for options, mode in (("", 0o660), (":mode=600", 0o600)):
            await self.start(f"admin = unix:{self.socket}{options}")
            self.assertEqual(mode_of(self.socket), mode)
            await self.stop()
            self.assertFalse(self.socket.exists())

    async def test_relative(self) -> None:
        """A relative path starts at the folder of the rules file, and may have signs that mean something in endpoints."""
        await self.start("admin = unix:a\\:b.sock")
        self.assertTrue((self.folder / "a:b.sock").is_socket())

    async def test_reload(self) -> None:
        """A reload that does not change the endpoint keeps its socket, and answers by the same connection."""
        await self.start()
        inode = self.inode()
        self.write_rules("grace = 1s")
        told = await self.post("/api/reload")
        self.assertEqual(told.json["changes"], "grace of [txmux] changed")
        self.assertEqual(self.inode(), inode)
        self.assertEqual((await self.get("/healthz")).status, 200)

    async def test_changed(self) -> None:
        """A changed endpoint is opened anew; whoever has asked by the old one is answered there."""
        await self.start()
        other = self.folder / "other.sock"
        self.write_rules(f"admin = unix:{other}")
        told = await self.post("/api/reload")
        self.assertEqual((told.status, told.json["changes"]), (200, "admin of [txmux] changed"))
        self.assertFalse(self.socket.exists())
        self.assertEqual((await self.ask("GET", "/healthz", to=other)).status, 200)
        self.write_rules("admin = off")
        self.assertEqual((await self.running.reload()).errors, ())
        self.assertFalse(other.exists())
        self.assertEqual(self.running._endpoints.sockets(), {})

    async def test_refused_change(self) -> None:
        """If the endpoint cannot be opened, or anything else is wrong, all goes on as before."""
        await self.start()
        inode = self.inode()
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        self.write_rules(f"metrics = 127.0.0.1:{taken.getsockname()[1]}")
        told = await self.post("/api/reload")
        self.assertEqual(told.status, 422)
        self.assertIn("[txmux] metrics 127.0.0.1:", told.error)
        self.assertIn("another program has it", told.error)
        other = self.folder / "other.sock"
        text = self.text(f"admin = unix:{other}\naccess_log = {self.folder}/no/log")
        self.write(text.replace("access_log = off\n", ""))
        self.assertEqual((await self.post("/api/reload")).status, 422)
        self.assertFalse(other.exists())
        self.assertEqual(self.inode(), inode)
        self.assertEqual((await self.get("/healthz")).status, 200)

    async def test_stale(self) -> None:
        """The file of a service that was killed is replaced; that of one that runs is not."""
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.socket))
        await self.start()
        second = MuxService(load(self.file), starter=starter())
        problem = self.assertRaises(ListenError, second.startService)
        self.assertIn(f"[txmux] admin unix:{self.socket}", str(problem))
        self.assertIn("another program listens there", str(problem))
        self.assertTrue(self.socket.is_socket())

    def test_same_twice(self) -> None:
        """Both endpoints cannot be the same."""
        self.write_rules(f"metrics = unix:{self.socket}")
        problem = self.assertRaises(RulesError, load, self.file)
        self.assertIn("metrics: ", str(problem))
        self.assertIn(" is taken by ", str(problem))


class AutomaticTest(AdminCase):
    """``admin = auto``."""

    def setUp(self) -> None:
        super().setUp()
        self.runtime, self.own = self.folder / "run", self.folder / "user"
        environment = {
            "RUNTIME_DIRECTORY": f"{self.folder}/missing:{self.runtime}",
            "XDG_RUNTIME_DIR": str(self.own),
        }
        patched = mock.patch.dict(os.environ, environment)
        patched.start()
        self.addCleanup(patched.stop)
        self.file = self.folder / "edge.rules.ini"

    async def auto(self) -> None:
        """Start a service as ``twist txmux`` does."""
        await self.start("admin = auto", resolve_admin_auto=True)

    async def test_runtime_directory(self) -> None:
        """The socket is in the folder that systemd has made, named after the rules file, for this user only."""
        self.runtime.mkdir()
        with capturedLogs() as events:
            await self.auto()
        path = self.runtime / "edge.rules.sock"
        self.assertEqual(mode_of(path), 0o600)
        self.assertIn(f"unix:{path}", [event.get("address") for event in events])
        told = await self.ask("GET", "/healthz", to=path)
        self.assertEqual(told.status, 200)
        inode = path.stat().st_ino
        self.assertEqual((await self.running.reload()).changes, "nothing changed")
        self.assertEqual(path.stat().st_ino, inode)

    async def test_stays(self) -> None:
        """It stays where it is, though its folder cannot be written to any more, or a better one is there."""
        (self.own / "txmux").mkdir(parents=True)
        await self.auto()
        path = self.own / "txmux/edge.rules.sock"
        self.assertTrue(path.is_socket())
        self.runtime.mkdir()
        self.assertEqual((await self.running.reload()).changes, "nothing changed")
        self.assertEqual((await self.ask("GET", "/healthz", to=path)).status, 200)

    async def test_no_folder(self) -> None:
        """Without a folder there is none, and the log says which were looked for."""
        # A service of this machine may have made the system's.
        system = self.folder / "system"
        self.patch(listen_addresses, "_SYSTEM_FOLDER", system)
        with capturedLogs() as events:
            await self.auto()
        (line,) = [event for event in events if "no admin endpoint" in event.get("log_format", "")]
        self.assertIn(f"{self.runtime}, {system}, {self.own}/txmux", line["folders"])
        self.assertEqual(self.running._endpoints.sockets(), {})

    async def test_same_name(self) -> None:
        """A service whose rules have the name of another one's starts, and leaves the other one its socket."""
        self.runtime.mkdir()
        (self.own / "txmux").mkdir(parents=True)
        path = self.runtime / "edge.rules.sock"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            inode = path.stat().st_ino
            await self.auto()
            self.assertEqual(path.stat().st_ino, inode)
            self.assertTrue((self.own / "txmux/edge.rules.sock").is_socket())

    async def test_embedded(self) -> None:
        """Programs that embed txmux have none unless they name one."""
        self.runtime.mkdir()
        await self.start("admin = auto")
        self.assertEqual(list(self.runtime.iterdir()), [])

    def test_order(self) -> None:
        """The folders are looked for in the order of the reference."""
        environment = {"RUNTIME_DIRECTORY": "/a:/b", "XDG_RUNTIME_DIR": "/c"}
        self.assertEqual(
            list(map(str, folders(environment))), ["/a", "/b", "/run/txmux", "/c/txmux"]
        )
        self.assertEqual(list(map(str, folders({}))), ["/run/txmux"])


class TokenFileTest(SynchronousTestCase):
    """The file of ``admin_token``."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.path = self.folder / "token"

    def test_made(self) -> None:
        """It is made if it is not there, for its owner only, with 32 random bytes as URL-safe text; then it stays."""
        token = read_token(self.path)
        self.assertRegex(token, r"\A[A-Za-z0-9_-]{43}\Z")
        self.assertEqual(mode_of(self.path), 0o600)
        self.assertEqual(read_token(self.path), token)
        self.assertNotEqual(read_token(self.folder / "other"), token)

    def test_useless(self) -> None:
        """A file without a secret is refused, lest everybody know it."""
        for text in ("", "\n", "short", "two words that are long enough", "e\u0301" * 20):
            self.path.write_text(text)
            problem = self.assertRaises(MuxError, read_token, self.path)
            self.assertIn("remove the file, and a new one is created", str(problem))

    def test_unreadable(self) -> None:
        """A file that can be neither read nor made is named with the reason."""
        problem = self.assertRaises(MuxError, read_token, self.folder / "missing" / "token")
        self.assertIn("can be neither read nor created: No such file or directory", str(problem))


class StartTest(AdminCase):
    """A start that fails."""

    def test_no_token(self) -> None:
        """Without a token there is no start, and no socket is left."""
        text = self.text(f"admin = 127.0.0.1:0\nadmin_token = {self.folder}/missing/token")
        service: Any = self.service(text)
        self.assertRaises(MuxError, service.startService)
        self.assertEqual(service._endpoints.sockets(), {})
