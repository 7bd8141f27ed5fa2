from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import bcrypt
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.control import service_files
from txmux.control.service_files import ServiceFiles, lost_files
from txmux.net.watched import FilesInUse
from txmux.rules.reading.parser import parse


@attrs.define(eq=False)
class _Watched:
    section: str
    trouble: str = ""
    wrong: str = ""
    may_lack: bool = True
    made: object = 1
    examined: int = 0
    used: int = 0
    user: str = attrs.Factory(lambda self: self.section, takes_self=True)
    in_use: FilesInUse = attrs.Factory(FilesInUse)

    def examine(self) -> Callable[[], None] | None:
        self.examined += 1
        return self.use if self.trouble else None

    def use(self) -> None:
        self.used += 1

    def watched(self) -> list["_Watched"]:
        return [self]


class ServiceFilesTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.sent: list[Mapping[str, FilesInUse]] = []
        self.route = _Watched("[route r] ", "lacks it")
        self.backend = _Watched("[backend b] ")
        terminators: Any = self.route
        upstreams: Any = self.backend
        self.files = ServiceFiles(terminators, upstreams, self.send)

    def send(self, values: Mapping[str, FilesInUse]) -> Deferred[None]:
        self.sent.append(values)
        return succeed(None)

    def test_looks(self) -> None:
        """One at a time; what a disk does not tell is asked again, and any other fault is logged."""
        looks = list[Deferred[Any]]()

        async def look(does: Callable[[Any], Any], some: list[Any]) -> Any:
            looks.append(asked := Deferred[Any]())
            problem = await asked
            return (None, problem) if problem else (does(some), None)

        self.patch(service_files, "outcome_of_look", look)
        self.files.look()
        self.files.look()
        self.assertEqual(len(looks), 1)
        late = TimeoutError(0, "late", "/disk")
        looks[0].callback(late)
        looks[1].callback(None)
        counts = [(one.examined, one.used) for one in (self.route, self.backend)]
        self.assertEqual(counts, [(1, 1), (1, 0)])
        self.assertEqual(self.sent, [self.files.in_use()])
        looking = Deferred.fromCoroutine(self.files.look_now())
        looks[2].callback(late)
        self.assertNoResult(looking)
        with capturedLogs() as events:
            looks[3].callback(late)
        self.successResultOf(looking)
        [event] = events
        self.assertEqual((event["problem"], len(looks), len(self.sent)), (late, 4, 2))

    def test_files_of_workers(self) -> None:
        """They are read again with the rules, and in use once these are."""
        file, hashed = make_folder(self) / "users", bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()
        route = "[route r]\nmatch = socks5\ntunnel = yes\nbackend = 192.0.2.1:22\n"
        rules = parse(f"[listen a]\nendpoint = :1\n{route}tunnel_users = {file}\n", "x.ini")
        for name in ("first", "second"):
            file.write_text(f"{name}:{hashed}\n")
            with capturedLogs():
                self.files.prepare(rules)
                self.files.commit()
            [used] = [its for its in self.sent[-1].values() if its.files]
            self.assertEqual(used.read(file), file.read_bytes())

    def test_what_is_lacking(self) -> None:
        """Another process gets what is in use of it, by its section."""
        files = {Path("/a"): (5.0, b"a")}
        for one in (self.route, self.backend):
            one.in_use = FilesInUse(files)
        self.assertEqual(self.files.troubles(), ["lacks it"])
        self.assertEqual(self.files.troubles_of_others(), [])
        self.assertEqual(self.files.lost(), [{"r": {"/a": "YQ=="}}, {}])
        self.backend.trouble = "lacks it, too"
        lost = self.files.lost()
        self.assertEqual(lost, [{"r": {"/a": "YQ=="}}, {"b": {"/a": "YQ=="}}])
        read = lost_files(*lost)
        self.assertEqual({*read}, {"[route r] ", "[backend b] "})
        self.assertEqual(read["[route r] "].files, {Path("/a"): (0.0, b"a")})
        self.backend.made, self.route.may_lack = None, False
        self.assertEqual(self.files.lost(), [{}, {}])
        self.route.section, self.route.may_lack = "[listen x] ", True
        self.assertEqual(self.files.lost(), [{}, {}])
