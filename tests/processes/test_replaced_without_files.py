"""A worker that ends is replaced, whatever has become of the files of the rules since the service started."""

import shutil
from collections.abc import Collection, Mapping

import pytest
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from tests.serving.damaged_files import damages, in_each_way, in_one_way, use_files
from tests.support.kit import SupervisedTestCase, change_constants
from tests.support.named_files import FILES, RULES
from tests.support.peers import PeerFactory, connect, listen, reactor
from txmux.processes.supervisor import worker
from txmux.rules.reading.sections import TABLES
from txmux.telemetry import lines

_KINDS = "gone", "unreadable", "folder", "garbage"
_MADE_AGAIN = {("logs/access.log", "gone"), ("logs/access.log", "garbage"), ("logs", "folder")}
"""What a log is opened in all the same."""

_OF_SOURCES = {
    *("acme_ca", "acme_eab", "admin_token", "admin_tokens", "consul", "crowdsec_key"),
    *("networks", "shared_limits"),
}
"""What no worker opens as it starts; it is an item once its source has given no good answer for a minute, or when it is asked for."""


@pytest.mark.by_turns(each=True)
class ReplacedTest(SupervisedTestCase):
    """Each file is damaged in each way while the service runs; then its only worker is killed."""

    def setUp(self) -> None:
        super().setUp()
        use_files(self)

    async def start(self, more: str = "") -> None:
        change_constants(self, worker, _LONGEST_OUTAGE=0.0)
        self.backend = PeerFactory()
        text = self.file.read_text().replace("[txmux]", "[txmux]\nworkers = 1")
        text = text.replace("::/0", f"::/0, 127.0.0.0/8{more}")
        text += f"[route ssh]\nunder = public\nmatch = ssh\nbackend = 127.0.0.1:{listen(self, self.backend)}\n"
        self.port, *_ = await self.run_service(text, pidfile=self.folder / "pid")

    async def replaced(self) -> str:
        """End the worker, wait for another one that relays a client, and return what needs attention."""
        await self.supervisor.state.files.look_now()  # as each second
        await self.killed(*self.supervisor.pool.workers)
        await self.all_serve()
        client = await connect(self, self.port)
        client.send(b"SSH-2.0-a\r\n")
        server = await self.backend.peer(len(self.backend.peers))
        await server.has(11)
        server.send(b"SSH-2.0-b\r\n")
        await client.has(11)
        client.reset()
        return await self.items()

    async def items(self) -> str:
        items = (await self.running.control.status())["attention"]
        told = (f"{item['text']} {item['cause']}" for item in items if item["what"] != "token")
        return "\n".join(told)

    async def test_each_file(self) -> None:
        await self.check_named(in_one_way(_KINDS))

    @pytest.mark.whole
    async def test_each_file_in_each_way(self) -> None:
        await self.check_named(in_each_way(_KINDS))

    async def check_named(self, ways: Mapping[str, Collection[str]]) -> None:
        await self.start()
        unnamed = []
        for name in FILES:
            for kind in damages(self.folder / name, ways[name]):
                found = await self.replaced()
                is_fine = name in _OF_SOURCES or (name, kind) in _MADE_AGAIN
                named = name.removesuffix("/a.pem")  # of a folder without keys
                if not is_fine and f"{self.folder}/{named}" not in found:
                    unnamed.append((name, kind, found))
        self.assertEqual(unnamed, [])
        # What was asked for meanwhile says so until it is asked for again.
        left = [
            line
            for line in (await self.replaced()).splitlines()
            if not any(f"{self.folder}/{name}" in line for name in (*_OF_SOURCES, "acme_folder"))
        ]
        self.assertNotIn(str(self.folder), "\n".join(left))

    async def test_log_whose_folder_is_gone(self) -> None:
        """Lines are counted until it can be opened, and then it is said how many were lost in all."""
        change_constants(self, lines, _SETTLED=0.0)
        await self.start()
        shutil.rmtree(self.folder / "logs")
        log = f"access log {self.folder}/logs/access.log"
        self.assertIn(f"{log}: cannot be opened No such file or directory", await self.replaced())
        while f"{log}: 1 line lost" not in await self.items():
            await deferLater(reactor, 0.05)
        (self.folder / "logs").mkdir()
        with capturedLogs() as events:
            self.running.reopen_log()
            while log in await self.items():
                await deferLater(reactor, 0.05)
        told = [eventAsText(event, includeTimestamp=False) for event in events]
        self.assertIn(f"{log}: written again; 1 line lost in all", "\n".join(told))
        await self.replaced()
        while not (self.folder / "logs/access.log").read_text():
            await deferLater(reactor, 0.05)

    async def test_endpoint_of_twisted(self) -> None:
        """A port that cannot be opened again, since its key is gone, does not keep the others closed."""
        key = self.folder / "endpoint"
        await self.start(f"\n[listen more]\nendpoint = ssl:0:interface=127.0.0.1:privateKey={key}")
        found = {kind: await self.replaced() for kind in damages(key, _KINDS)}
        for said in (
            "listener more: no client is accepted",
            "[listen more] endpoint: cannot listen at ssl:",
        ):
            self.assertEqual([kind for kind in found if said not in found[kind]], [])
        self.assertNotIn("listener more", await self.replaced())
        # Nor does a worker need the rules' own file, that with the process's ID, or the folder of all.
        for name in ("rules.ini", "pid"):
            (self.folder / name).unlink()
            await self.replaced()
        shutil.rmtree(self.folder)
        self.addCleanup(self.folder.mkdir)
        await self.replaced()


class KnownTest(SynchronousTestCase):
    def test_every_key(self) -> None:
        """There is a file of each key that names one."""
        names = {
            name for keys in TABLES.values() for name, key in keys.items() if key.files.opens
        } - {"include", "server"}  # read by the supervisor; and for each connection
        self.assertEqual([name for name in names if f"{name} = " not in RULES], [])
