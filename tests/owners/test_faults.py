"""Of several owners, one makes a mistake: the clients of the others notice nothing, and changes of theirs are in force."""

import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import pytest

from tests.processes.test_privileges import python_for_everybody, require_root
from tests.support.certificates import make_authority
from tests.support.changes import change_environment
from tests.support.kit import WorkersTestCase, for_each, free_port, leave_unmeasured, make_folder
from tests.support.services import Service
from txmux.cli import main

pytestmark = pytest.mark.by_turns(each=True)
BYSTANDERS = "older", "younger"
_FILES = {"older": "10-older.ini", "faulty": "20-faulty.ini", "younger": "30-younger.ini"}


class Owner:
    """What an owner has: a listener, and a route with a backend of its own; `more` lines may be wrong."""

    def __init__(self, name: str, port: int, server: socket.socket) -> None:
        self.name = name
        self.port = port
        self.server = server
        self.more = ""

    @property
    def text(self) -> str:
        address = "{}:{}".format(*self.server.getsockname())
        return (
            f"[listen {self.name}]\nendpoint = 127.0.0.1:{self.port}\n"
            f"[route {self.name}]\nmatch = any\nunder = {self.name}\nbackend = {self.name}\n"
            f"[backend {self.name}]\nserver = {address}\n{self.more}"
        )


_ENDPOINT = "[listen wrong]\nendpoint = "
_BACKENDS = "".join(f"[backend {name}]\nserver = 127.0.0.1:1\n" for name in BYSTANDERS)
_ADDRESSES = f"{_ENDPOINT}127.0.0.1:{{older}}\n    127.0.0.1:{{younger}}\n"
_BOTH = f"{_ENDPOINT}127.0.0.1:{{taken}}\n[backend younger]\nserver = 127.0.0.1:1\n"
FAULTS: Mapping[str, tuple[str, str]] = {
    "text": ("nothing\n", "a line needs '='"),
    "key": ("servers = 127.0.0.1:1\n", "unknown key"),
    "settings": ("[txmux]\nworkers = 2\n", "is already at"),
    "name taken": ("[backend older]\nserver = 127.0.0.1:1\n", "is already at"),
    "names of both others": (_BACKENDS, "is already at"),
    "key, and addresses of both others": (f"bad = 1\n{_ADDRESSES}", "unknown key"),
    "port taken, and the name of a younger owner": (_BOTH, "cannot listen at|is already at"),
    "address of another owner": (f"{_ENDPOINT}127.0.0.1:{{older}}\n", "is taken by"),
    "port taken": (f"{_ENDPOINT}127.0.0.1:{{taken}}\n", "cannot listen at"),
    "port denied": (
        f"{_ENDPOINT}192.0.2.1:2\n",
        "cannot listen at 192.0.2.1:2: no interface of this machine has that address",
    ),
    "interface": (
        f"{_ENDPOINT}[fe80::1%none0]:2\n",
        "cannot listen at .fe80::1%none0.:2: this machine has no interface 'none0'",
    ),
    "folder of a socket": (
        f"{_ENDPOINT}unix:/none/socket\n",
        "cannot listen at unix:/none/socket: there is no folder '/none'; create it, or correct the path",
    ),
    "too many ports": (
        f"{_ENDPOINT}127.0.0.2:10000-59999\n",
        "with [0-9]+ listening sockets, a worker that starts needs some",
    ),
    "endpoint of Twisted's": (f"{_ENDPOINT}haproxy:tcp:1\n", "cannot have an endpoint"),
    "socket of systemd": (f"{_ENDPOINT}systemd:domain=INET:index=0\n", "cannot have an endpoint"),
    "server of Twisted's": (
        "[route b]\nmatch = ssh\nbackend = tls:a.example:443:trustRoots=/none\n",
        "cannot be used",
    ),
    "circle": ("fallback = faulty\n", "is a circle"),
}
"""What an owner adds that is wrong, and what is said of it."""

LATER: Mapping[str, tuple[str, str]] = {
    "name of a younger owner": ("[route younger]\nmatch = any\nbackend = close\n", "is already at"),
    "address of a younger owner": (f"{_ENDPOINT}127.0.0.1:{{younger}}\n", "is taken by"),
    **FAULTS,
}  # fmt: skip
"""The same while a service runs: what a younger owner has in force is theirs, too."""
_NAMES_LIST = "[route b]\nmatch = ssh\nunder = faulty\nfrom = @{}\nbackend = close\n"


@for_each("owned", ("file", "unit", "hidden"))
class FaultsTest(WorkersTestCase):
    """Services with three owners, of which the second makes a mistake; what each has is a ``file``, a ``unit`` of one file, or a ``hidden`` file, which only root's helper of the service reads."""

    owned: str
    author = -1

    def setUp(self) -> None:
        super().setUp()
        self.home = make_folder(self)
        self.units = self.home / "d"
        self.units.mkdir()
        if self.owned == "hidden":
            require_root()
            leave_unmeasured(self)
            self.home.chmod(0o700)
        self.owners = {name: Owner(name, free_port(), self.backend()) for name in _FILES}
        self.faulty = self.owners["faulty"]
        self.taken = self.backend().getsockname()[1]

    def add(self, text: str) -> None:
        ports = {name: its.port for name, its in self.owners.items()}
        self.faulty.more = text.format(taken=self.taken, **ports)

    def write(self, *, without: Iterable[str] = ()) -> None:
        texts = {name: its.text for name, its in self.owners.items() if name not in without}
        if self.owned == "unit":
            marked = (f"[unit {name}]\n{text}" for name, text in texts.items())
            self._replace("all.ini", "".join(marked))
            return
        for name, file in _FILES.items():
            if name in texts:
                self._replace(file, texts[name])
            else:
                (self.units / file).unlink(missing_ok=True)

    def _replace(self, file: str, text: str) -> None:
        self.units.mkdir(exist_ok=True)
        draft = self.home / "draft"
        draft.write_text(text)
        os.chown(draft, self.author, -1)
        draft.rename(self.units / file)

    def serve(self, more: str = "") -> Service:
        self.write()
        settings = f"include = {self.units}/*.ini\ndrain_timeout = 10m"
        operator = f"[listen operator]\nendpoint = 127.0.0.1:{free_port()}\n{more}"
        before: Sequence[str] = ()
        if self.owned == "hidden":
            settings, before = f"{settings}\nuser = nobody", python_for_everybody()
        mux = Service(self.folder, operator, settings, before=before, admin=True)
        self.mux = self.own(mux)
        return mux

    def untaken(self) -> Mapping[str, Any]:
        rows = self.mux.api("status")["untaken"]
        return {re.findall(r"[a-z]+", row["unit"].removesuffix(".ini"))[-1]: row for row in rows}

    def connect(self, owner: Owner) -> tuple[socket.socket, socket.socket]:
        client = self.enterContext(socket.create_connection(("127.0.0.1", owner.port), 10))
        client.settimeout(60)
        client.sendall(b"x")
        return client, self.accept_from(owner.server, b"x")

    def assert_refused(self, owner: Owner) -> None:
        self.assertTrue(self.is_refused(owner.port), owner.name)

    def bystanders(self) -> list[tuple[socket.socket, socket.socket]]:
        return [self.connect(self.owners[name]) for name in BYSTANDERS]

    def assert_untaken(self, fault: str, *, in_force: bool) -> None:
        untaken, message = self.untaken(), LATER[fault][1]
        self.assertEqual([*untaken], ["faulty"], fault)
        self.assertRegex(untaken["faulty"]["errors"][0], message)
        self.assertEqual(untaken["faulty"]["in_force"], in_force)
        [item] = [one for one in self.mux.api("status")["attention"] if one["what"] == "unit"]
        stays = "what was in force for it stays" if in_force else "it is not served"
        self.assertRegex(item["text"], rf"faulty.*{stays}")
        self.assertRegex(item["cause"], message)

    def assert_stays(self, mux: Service) -> None:
        """Find what is in force for the faulty owner, and all others served, after a reload and two upgrades."""
        for change in (lambda: mux.api("reload", {}), mux.upgrade, mux.upgrade):
            held = self.bystanders()
            change()
            [(owner, row)] = self.untaken().items()
            self.assertEqual((owner, row["in_force"]), ("faulty", True))
            self.answers(*self.connect(self.faulty))
            for pair in held:
                self.answers(*pair)

    def test_start(self) -> None:
        """At a start, the faulty owner is not served, and the others are."""
        for fault, (text, _) in FAULTS.items():
            self.add(text)
            mux = self.serve()
            self.assert_untaken(fault, in_force=False)
            self.all_end(self.bystanders())
            self.assert_refused(self.faulty)
            self.assertIn("2 of 3 ", mux.child.output)
            mux.stop()

    def test_reload(self) -> None:
        """At a reload, what was in force for the faulty owner stays."""
        mux = self.serve()

        def reload(message: str) -> None:
            changes = mux.api("reload", {})["changes"]
            if message:
                self.assertRegex(changes, rf"; 2 of 3 (?:files|units) taken; .*(?:{message})")
            else:
                self.assertNotIn("taken", changes)

        self.assert_taken_later(reload)

    def test_upgrade(self) -> None:
        """The same holds for a new process, though that reads the files itself."""
        mux = self.serve()
        self.assert_taken_later(lambda _: mux.upgrade())

    def assert_taken_later(self, change: Callable[[str], object]) -> None:
        """See each fault keep out what is the faulty owner's alone, until it is mended; `change` is told what is said of it."""
        for fault, (text, message) in LATER.items():
            held, faulty = self.bystanders(), self.connect(self.faulty)
            self.add(text)
            for name in BYSTANDERS:
                self.owners[name].server = self.backend()
            before, self.faulty.server = self.faulty.server, self.backend()
            self.write()
            change(message)
            self.assert_untaken(fault, in_force=True)
            self.all_end([*held, *self.bystanders()])
            after, self.faulty.server = self.faulty.server, before
            self.all_end([faulty, self.connect(self.faulty)])
            self.faulty.server, self.faulty.more = after, ""
            self.write()
            change("")
            self.assertEqual(self.untaken(), {})
            self.all_end([self.connect(self.faulty)])

    def test_owner_deleted(self) -> None:
        """An owner who goes takes nobody along, not even with the folder of all."""
        mux = self.serve()
        for change in (lambda: self.mux.api("reload", {}), mux.upgrade):
            held = self.bystanders()
            self.write(without=["faulty"])
            change()
            self.assertEqual(self.untaken(), {})
            for pair in [*held, *self.bystanders()]:
                self.answers(*pair)
            self.assert_refused(self.faulty)
            self.write()
            change()
            self.answers(*self.connect(self.faulty))
        self.write(without=self.owners)
        if self.owned == "file":
            self.units.rmdir()
        change()
        for pair in held:
            self.answers(*pair)
        for owner in self.owners.values():
            self.assert_refused(owner)
        self.write()
        change()
        self.bystanders()

    def test_unseen(self) -> None:
        """What is in the place of files that are in force, or hides them, takes nothing from their owners."""
        mux = self.serve()
        files = [*self.units.iterdir()]
        for file in files:
            file.unlink()
            file.mkdir()
        for change in (lambda: self.mux.api("reload", {}), mux.upgrade, mux.upgrade):
            held = self.bystanders()
            change()
            units = {row["unit"] for row in mux.api("status")["untaken"]}
            self.assertEqual(units, {*map(str, files)})
            for owner in self.owners.values():
                self.answers(*self.connect(owner))
            for pair in held:
                self.answers(*pair)
        for file in files:
            file.rmdir()
        self.write()
        change()
        self.assertEqual(self.untaken(), {})

    def test_list(self) -> None:
        """A list of networks that is wrong, or gone, takes nothing from the owner that names it."""
        networks = self.home / "networks"
        networks.write_text("192.0.2.0/24\n")
        change_environment(self, TXMUX_OF_A_UNIT=networks.name)
        self.faulty.more = _NAMES_LIST.format(f"{self.home}/${{TXMUX_OF_A_UNIT}}")
        mux = self.serve()
        for damage in (lambda: networks.write_text("worse\n"), networks.unlink):
            damage()
            self.assert_stays(mux)
        networks.write_text("192.0.2.0/24\n")
        mux.upgrade()
        self.assertEqual(self.untaken(), {})

    def test_large_list(self) -> None:
        """A list that is too large to be handed over is named, since its unit depends on the file from then on."""
        for name, size in (("small", 1), ("large", 17 << 20)):
            networks = self.home / name
            networks.write_text(f"192.0.2.0/24 # {'x' * size}\n")
            self.faulty.more += _NAMES_LIST.format(networks).replace("route b", f"route {name}")
        mux = self.serve()
        mux.upgrade()
        self.assertEqual(self.untaken(), {})
        mux.child.wait_for("are not handed over")
        named = re.findall("warn.*are not handed over.* in all: (.*?);", mux.child.output)
        self.assertEqual(named, [f"{self.home}/large"])

    def test_secret(self) -> None:
        """Without a file that has a secret, what was in force stays so, and an upgrade goes well."""
        secret = self.home / "secret"
        secret.write_text("secret\n")
        secret.chmod(0o600)
        self.faulty.more = (
            f"[backend b]\nserver = 127.0.0.1:1\nvia = http://u:{secret}@127.0.0.1:1\n"
            "[route b]\nmatch = ssh\nunder = faulty\nbackend = b\n"
        )
        mux = self.serve()
        mux.api("reload", {})
        self.assertEqual(self.untaken(), {})
        secret.unlink()
        self.assert_stays(mux)

    def test_right(self) -> None:
        """What an owner may no longer read or write to takes nothing from them: what is in force was allowed."""
        require_root()
        self.author = 12345
        folder = make_folder(self)
        folder.chmod(0o755)
        networks, key, sockets = (folder / name for name in ("networks", "key.pem", "sockets"))
        networks.write_text("192.0.2.0/24\n")
        make_authority().issue("a.example").write(key, key=True)
        sockets.mkdir()
        self.faulty.more = (
            f"{_NAMES_LIST.format(networks)}[listen s]\nendpoint = unix:{sockets}/s\n"
            f"[route t]\nmatch = tls\nunder = faulty\nterminate_tls = {key}\nbackend = faulty\n"
        )
        named = (networks, 0o600), (key, 0o600), (sockets, 0o755)
        for path, mode in named:
            path.chmod(mode)
            os.chown(path, self.author, -1)
        mux = self.serve()
        self.assertEqual(self.untaken(), {})
        for path, _ in named:
            os.chown(path, 0, -1)
            self.assert_stays(mux)
            os.chown(path, self.author, -1)
            mux.api("reload", {})
            self.assertEqual(self.untaken(), {})

    def test_backend_that_is_gone(self) -> None:
        """Clients of a route whose server the operator has taken out are refused, and not left to the default."""
        with_backend = f"[backend shared]\nserver = 127.0.0.1:{self.taken}\n"
        allowed = f"routes_from = *\ndefault = 127.0.0.1:{self.taken}\n"
        self.faulty.more = "[route s]\nmatch = ssh\nunder = operator\nbackend = shared\n"
        mux = self.serve(f"{allowed}{with_backend}")
        mux.reload((re.escape(with_backend), ""))
        for change in (lambda: mux.api("reload", {}), mux.upgrade, mux.upgrade):
            change()
            self.assertIn("no [backend shared]", self.untaken()["faulty"]["errors"][0])
            with mux.connect() as client:
                client.sendall(b"SSH-2.0-a\r\n")
                self.assertEqual(client.recv(1), b"")
            self.answers(*self.connect(self.faulty))
        self.assertEqual({row["route"] for row in mux.take(3, "operator")}, {"s"})
        mux.reload(("\\Z", with_backend))
        self.assertEqual(self.untaken(), {})

    def test_freed(self) -> None:
        """A port is tried again, and its unit is taken when it is free."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            self.faulty.more = f"{_ENDPOINT}127.0.0.1:{other.getsockname()[1]}\n"
            mux = self.serve()
            self.assertEqual([*self.untaken()], ["faulty"])
        mux.child.wait_for("listener.*? faulty, wrong opened|listeners new .*wrong")
        self.answers(*self.connect(self.faulty))
        self.assertEqual(self.untaken(), {})

    def test_check(self) -> None:
        """The check of the rules names what is wrong, and with which owner."""
        for text, message in FAULTS.values():
            self.add(text)
            self.write()
            file = self.home / "check.ini"
            operator = "[listen operator]\nendpoint = :1\n"
            file.write_text(f"[txmux]\ninclude = {self.units}/*.ini\n{operator}")
            with redirect_stdout(StringIO()) as out, redirect_stderr(out):
                code = main(["check", str(file)])
            if message.partition("|")[0] != "cannot listen at":
                self.assertEqual(code, "no interface" not in message, message)
                self.assertRegex(out.getvalue(), rf"(?m)^{self.units}.*{message}")
                self.assertNotRegex(out.getvalue(), r"(?m)^\S*(older|younger).ini")
