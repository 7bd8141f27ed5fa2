import errno
import os
import resource
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.asking import AdminCase, request
from tests.support.changes import change_constants, change_environment, pretend_user
from tests.support.forks import starter
from tests.support.kit import free_port, make_folder
from tests.support.limits import lowered
from tests.support.proc import forked
from tests.support.supervised import resources_of
from txmux import MuxService, files, load
from txmux.admin import listen_addresses
from txmux.admin.listen_addresses import read_token
from txmux.errors import ListenError, MuxError
from txmux.files import socket_folders
from txmux.rules.problems import RulesError


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class SocketsTest(AdminCase):
    def inode(self) -> int:
        (opened,) = self.endpoints.store.sockets().values()
        return os.fstat(opened.fileno()).st_ino

    async def test_mode_of_the_socket_file_and_its_removal(self) -> None:
        for options, mode in (("", 0o660), (":mode=600", 0o600)):
            await self.start(f"admin = unix:{self.socket}{options}")
            self.assertEqual(mode_of(self.socket), mode)
            await self.stop()
            self.assertFalse(self.socket.exists())
        await self.start("admin = unix:a\\:b.sock")  # relative path with an escaped colon
        self.assertTrue((self.folder / "a:b.sock").is_socket())

    async def test_client_whose_process_has_ended_and_changes_of_the_endpoint(self) -> None:
        await self.start()
        # A client whose process has ended may have connected for a worker.
        with self.connected_by_another() as client:
            client.sendall(request("GET", "/api/status"))
            answer = await deferToThread(client.recv, 100)
        self.assertEqual(int(answer.split()[1]), 403)
        inode = self.inode()  # a refused change leaves all as before
        taken = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        self.write_rules(f"metrics = 127.0.0.1:{taken.getsockname()[1]}")
        told = await self.post("/api/reload")
        self.assertEqual(told.status, 422)
        self.assertIn("[txmux] metrics: cannot listen at 127.0.0.1:", told.error)
        self.assertIn("another program has it", told.error)
        other = self.folder / "other.sock"
        text = self.text(f"admin = unix:{other}\naccess_log = {self.folder}/no/log")
        self.write(text.replace("access_log = off\n", ""))
        self.assertEqual((await self.post("/api/reload")).status, 422)
        self.assertFalse(other.exists())
        self.assertEqual(self.inode(), inode)
        self.assertEqual((await self.get("/healthz")).status, 200)
        other = self.folder / "other.sock"
        self.write_rules(f"admin = unix:{other}")  # changed endpoint is opened anew
        told = await self.post("/api/reload")
        self.assertEqual((told.status, told.json["changes"]), (200, "admin of [txmux] changed"))
        self.assertFalse(self.socket.exists())
        self.assertEqual((await self.ask("GET", "/healthz", to=other)).status, 200)
        self.write_rules("admin = off")
        self.assertEqual((await self.running.reload()).errors, ())
        self.assertFalse(other.exists())
        self.assertEqual(self.endpoints.sockets(), {})

    def connected_by_another(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        os.waitpid(forked(lambda: client.connect(str(self.socket))), 0)
        return client

    async def test_client_that_waits_at_a_removed_endpoint(self) -> None:
        """It is answered, though nobody has accepted it before."""
        await self.start("admin = 127.0.0.1:0\nadmin_token = token")
        endpoints = self.endpoints
        (opened,) = endpoints.store.sockets().values()
        self.write_rules("admin = off")
        prepared = endpoints.prepare(load(self.file))
        with socket.create_connection(opened.getsockname()) as client:
            client.sendall(request("GET", "/healthz"))
            endpoints.commit(prepared)
            self.assertIn(b"HTTP/1.1 401 ", await deferToThread(client.recv, 100))

    async def test_client_that_waits_where_the_file_is_gone(self) -> None:
        """It is answered, and the socket is made again."""
        clock = self.virtual()
        await self.start(use=clock)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            client.sendall(request("GET", "/healthz"))
            self.socket.unlink()
            clock.advance(5)
            self.assertIn(b"HTTP/1.1 200 ", await deferToThread(client.recv, 100))
        self.assertEqual((await self.get("/healthz")).status, 200)
        self.socket.unlink()
        self.assertEqual((await self.running.reload()).errors, ())
        self.assertEqual((await self.get("/healthz")).status, 200)

    async def test_port_of_a_unit(self) -> None:
        """The endpoint of the operator gets it in one reload, also where it only overlaps, and what is new of others is in force with it."""
        port, path = free_port(), self.folder / "of-a-unit"
        units = self.folder / "d"
        units.mkdir()
        endpoints = f"127.0.0.1:{port}\n    unix:{path}"
        (units / "a.ini").write_text(f"[listen a]\nmptcp = yes\nendpoint = {endpoints}\n")
        include = f"include = {units}/*.ini\n"
        await self.start(include)
        places: Sequence[tuple[str, Any]] = ((f"127.0.0.1:{port}", port), (f":{port}", port), (f"unix:{path}", path))  # fmt: skip
        for number, (endpoint, place) in enumerate(places):
            self.write_rules(f"{include}metrics = {endpoint}")
            name = f"b{number}"
            (units / f"{name}.ini").write_text(f"[listen {name}]\nendpoint = 127.0.0.1:0\n")
            report = await self.running.reload()
            self.assertEqual(report.errors, ())
            self.assertIn("a closed; metrics of [txmux] changed; ", report.changes)
            self.assertIn("a.ini is not taken, it is not served: ", report.changes)
            self.assertIn(f"listener {name} opened", report.changes)
            self.assertEqual((await self.ask("GET", "/healthz", to=place)).status, 200)
            self.write_rules(include)
            await self.running.reload()
            self.assertIn("a opened", (await self.running.reload()).changes)
        # An address of no machine: in vain, whatever goes.
        self.write_rules(f"{include}metrics = 192.0.2.1:{port}")
        (units / "a.ini").unlink()
        report = await self.running.reload()
        self.assertIn("no interface of this machine has that address", report.errors[0])
        self.write_rules(include)
        self.assertIn("a closed", (await self.running.reload()).changes)

    async def test_stale_socket_file_is_replaced_but_not_one_in_use(self) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.socket))
        await self.start()
        second = MuxService(load(self.file), starter=starter())
        problem = self.assertRaises(ListenError, second.startService)
        self.assertIn(f"[txmux] admin: cannot listen at unix:{self.socket}", str(problem))
        self.assertIn("another program listens there", str(problem))
        self.assertTrue(self.socket.is_socket())

    def test_both_endpoints_cannot_be_the_same(self) -> None:
        self.write_rules(f"metrics = unix:{self.socket}")
        problem = self.assertRaises(RulesError, load, self.file)
        self.assertIn("metrics: ", str(problem))
        self.assertIn(" is taken by ", str(problem))
        text = self.text(f"admin = 127.0.0.1:0\nadmin_token = {self.folder}/missing/token")
        service: Any = self.service(text)  # no start and no socket without a token
        self.assertRaises(MuxError, service.startService)
        self.assertEqual(resources_of(service).endpoints.sockets(), {})


class AutomaticTest(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.runtime, self.own = self.folder / "run", self.folder / "user"
        change_environment(self, RUNTIME_DIRECTORY="", XDG_RUNTIME_DIR=str(self.own))
        # A service of this machine may have made that of the system, or root would.
        self.system = self.folder / "var" / "system"
        change_constants(self, files, RUN=self.system)
        self.file = self.folder / "edge.rules.ini"

    async def auto(self) -> None:
        await self.start("admin = auto", resolve_admin_auto=True)

    def name_folders(self) -> None:
        os.environ["RUNTIME_DIRECTORY"] = f"{self.folder}/missing:{self.runtime}"

    async def test_socket_for_this_user_in_the_runtime_directory(self) -> None:
        self.name_folders()
        self.runtime.mkdir()
        with capturedLogs() as events:
            await self.auto()
        path = self.runtime / "edge.rules.sock"
        self.assertEqual(mode_of(path), 0o600)
        self.assertIn(f"unix:{path}", [event.get("address") for event in events])
        self.assertEqual((await self.ask("GET", "/healthz", to=path)).status, 200)
        inode = path.stat().st_ino
        self.assertEqual((await self.running.reload()).changes, "nothing changed")
        self.assertEqual(path.stat().st_ino, inode)

    async def test_socket_stays_where_it_is(self) -> None:
        (self.own / "txmux").mkdir(parents=True)
        await self.auto()
        path = self.own / "txmux/edge.rules.sock"
        self.assertTrue(path.is_socket())
        self.system.mkdir(parents=True)
        self.assertEqual((await self.running.reload()).changes, "nothing changed")
        self.assertEqual((await self.ask("GET", "/healthz", to=path)).status, 200)

    async def test_own_folder_is_made_for_this_user(self) -> None:
        self.own.mkdir()
        await self.auto()
        self.assertEqual(mode_of(self.own / "txmux"), 0o700)
        path = self.own / "txmux/edge.rules.sock"
        self.assertEqual((await self.ask("GET", "/healthz", to=path)).status, 200)

    async def test_folder_of_the_system_is_made_by_root(self) -> None:
        self.system.parent.mkdir()
        pretend_user(self, 0)
        await self.auto()
        path = self.system / "edge.rules.sock"
        self.assertEqual((mode_of(self.system), mode_of(path)), (0o755, 0o600))
        self.assertEqual((await self.ask("GET", "/healthz", to=path)).status, 200)

    async def test_socket_is_beside_other_endpoints(self) -> None:
        """Those of TCP and of other sockets do not take the commands away."""
        self.own.mkdir()
        token = self.folder / "token"
        settings = f"admin = 127.0.0.1:0\n    unix:{self.socket}\nadmin_token = {token}"
        await self.start(settings, resolve_admin_auto=True)
        path = self.own / "txmux/edge.rules.sock"
        for to in (path, self.socket):
            self.assertEqual((await self.ask("GET", "/api/status", to=to)).status, 200)
        self.assertEqual(token.stat().st_mode & 0o777, 0o600)
        self.write_rules(f"{settings}\n    ".replace(f"unix:{self.socket}", "off"))
        self.assertEqual((await self.running.reload()).errors, ())
        self.assertFalse(path.exists() or self.socket.exists())

    async def told(self, settings: str, level: Any, *folders: Path) -> str:
        with capturedLogs() as events:
            await self.start(settings, resolve_admin_auto=True)
        (line,) = [event for event in events if "txmux status" in event.get("log_format", "")]
        self.assertEqual(line["log_level"], level)
        self.assertEqual(line["why"], ", ".join([f"{folder} does not exist" for folder in folders]))
        return str(formatEvent(line))

    async def test_no_folder_is_a_warning_with_the_reason(self) -> None:
        """Unless there is another endpoint; and no other one is taken where systemd names some."""
        folders = (self.system, self.own / "txmux")
        told = await self.told("admin = auto", LogLevel.warn, *folders)
        self.assertIn("'txmux status' will not work: ", told)
        self.assertEqual(self.endpoints.sockets(), {})
        await self.stop()
        told = await self.told(f"admin = unix:{self.socket}", LogLevel.info, *folders)
        self.assertIn(f"'txmux status' need --rules {self.file}: ", told)
        await self.stop()
        self.name_folders()
        self.system.mkdir(parents=True)
        self.own.mkdir()
        await self.told("admin = auto", LogLevel.warn, self.folder / "missing", self.runtime)
        self.assertEqual([*self.system.iterdir(), *self.own.iterdir()], [])

    async def test_other_service_of_the_same_name_keeps_its_socket(self) -> None:
        self.system.mkdir(parents=True)
        (self.own / "txmux").mkdir(parents=True)
        path = self.system / "edge.rules.sock"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            inode = path.stat().st_ino
            await self.auto()
            self.assertEqual(path.stat().st_ino, inode)
            self.assertTrue((self.own / "txmux/edge.rules.sock").is_socket())

    async def test_programs_with_rules_of_their_own_have_none(self) -> None:
        """But a service of a file has it, as `twistd` runs it, since the file's reference says so."""
        self.name_folders()
        self.runtime.mkdir()
        await self.start("admin = auto")
        self.assertEqual(list(self.runtime.iterdir()), [])
        await self.stop()
        self.running = MuxService.from_file(self.file)
        self.running.startService()
        path = self.runtime / "edge.rules.sock"
        self.assertEqual((await self.ask("GET", "/healthz", to=path)).status, 200)

    def test_order_of_the_folders(self) -> None:
        environment = {"RUNTIME_DIRECTORY": "/a:/b", "XDG_RUNTIME_DIR": "/c"}
        found = list(map(str, socket_folders(environment)))
        self.assertEqual(found, ["/a", "/b", str(self.system), "/c/txmux"])
        self.assertEqual(list(map(str, socket_folders({}))), [str(self.system)])


class TokenFileTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.path = self.folder / "token"

    def test_made_once_and_private(self) -> None:
        token = read_token(self.path)
        self.assertRegex(token, r"\A[A-Za-z0-9_-]{43}\Z")
        self.assertEqual(mode_of(self.path), 0o600)
        self.assertEqual(read_token(self.path), token)
        self.assertNotEqual(read_token(self.folder / "other"), token)
        for text in ("", "\n", "short", "two words that are long enough", "e\u0301" * 20):
            self.path.write_text(text)
            problem = self.assertRaises(MuxError, read_token, self.path)
            self.assertIn("remove the file, and a new one is created", str(problem))

    def test_no_room(self) -> None:
        """A token for which there is no room leaves no file that the next one would have to be."""
        with lowered(resource.RLIMIT_FSIZE, 0):
            problem = self.assertRaises(MuxError, read_token, self.path)
        self.assertIn("cannot be created: File too large; make room", str(problem))
        self.assertEqual(len(read_token(self.path)), 43)
        folder = self.folder / "missing"  # unreadable file is named with the reason
        problem = self.assertRaises(MuxError, read_token, folder / "token")
        told = f"cannot be created: No such file or directory; create {folder}, or name"
        self.assertIn(told, str(problem))
        denied = mock.Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
        self.patch(listen_addresses, "make_token", denied)
        for makes in (denied, lambda path: path.write_text("x" * 20)):  # another process may
            self.patch(listen_addresses, "make_by_helper", makes)
            if makes is denied:
                problem = self.assertRaises(MuxError, read_token, self.folder / "denied")
                self.assertIn("cannot be created: Permission denied; name a file", str(problem))
            else:
                self.assertEqual(read_token(self.folder / "denied"), "x" * 20)
