"""Containers of Podman behind a service, by their labels."""

import socket
import sys
import time

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually
from tests.interop.namespaces import Namespace
from tests.interop.podman import NETWORK, Podman

_RULES = """
[txmux]
include = provided/*.ini
admin = unix:{folder}/admin.sock
watch_rules = 1s
drain_timeout = 1s
[listen public]
endpoint = 127.0.0.1:4433
default = close
routes_from = docker
"""
_CLIENTS = 500
_SOON = 2.0  # seconds


class PodmanTest(InteropTestCase):
    podman: Podman
    service: Child
    provider: Child

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        Namespace(cls).enter()
        cls.podman = cls.share(Podman(cls.folder))
        rules = cls.folder / "rules.ini"
        rules.write_text(_RULES.format(folder=cls.folder))
        (cls.folder / "provided").mkdir()
        cls.service = cls.share(Child(sys.executable, "-m", "txmux", "run", rules))
        cls.service.wait_for("serving with")
        cls.provider = cls.share(
            Child(
                *(sys.executable, "-m", "txmux", "provider", "docker", "--rules", rules),
                *("--write", cls.folder / "provided/docker.ini", "--network", NETWORK),
                *("--socket", f"unix:{cls.podman.socket}"),
                *("--wake", f"unix:{cls.folder}/wake.sock"),
            )
        )
        cls.provider.wait_for("0 objects")

    def connect(self, word: str) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", 4433), timeout=PATIENCE)
        self.addCleanup(client.close)
        client.sendall(f"{word}\n".encode())
        return client

    def answer(self, word: str) -> str:
        """Return what a client gets that says this, but for the echo; one that reaches a container in its last moment gets nothing."""
        with self.connect(word) as client:
            client.settimeout(0.2)
            try:
                return client.recv(1000).decode().partition("\n")[0]
            except ConnectionResetError:
                return ""
            except TimeoutError:
                return "nothing"

    def assert_soon(self, word: str, answer: str) -> None:
        begun = time.monotonic()
        eventually(lambda: self.answer(word) == answer, f"{word} is answered by {answer!r}")
        self.assertLess(time.monotonic() - begun, _SOON)

    def test_routes_come_and_go_and_cut_nobody(self) -> None:
        for name in ("one", "two", "three"):
            self.podman.create(name, {"txmux.match": f"payload text={name}"})
        self.podman.start("one")
        self.assert_soon("one", "one")
        clients = [self.connect("one") for _ in range(_CLIENTS)]
        for name in ("two", "three"):
            self.podman.start(name)
            self.assert_soon(name, name)
        for name in ("two", "three"):
            self.podman.stop(name)
            self.assert_soon(name, "")
        for client in clients:
            client.sendall(b"still here\n")
        for client in clients:
            said = b""
            while not said.endswith(b"still here\n"):
                more = client.recv(1000)
                self.assertTrue(more, said)
                said += more

    def test_a_bad_label_names_itself(self) -> None:
        self.podman.create("bad", {"txmux.mach": "any"})
        self.podman.create("host", {"txmux.match": "any", "txmux.tls_ca": "/etc/shadow"})
        self.provider.wait_for("container bad is left out: txmux.mach: there is no such label; did")
        self.provider.wait_for("container host is left out: txmux.tls_ca: labels may set nothing")
        eventually(
            lambda: "txmux.mach" in (self.folder / "provided/docker.ini").read_text(), "comment"
        )

    def test_sleep_and_wake(self) -> None:
        labels = {"txmux.match": "payload text=nap", "txmux.wake": "yes", "txmux.sleep": "1s"}
        self.podman.create("nap", labels)
        self.podman.start("nap")
        eventually(lambda: self.podman.state("nap") == "exited", "it sleeps")
        with self.connect("nap") as client:
            self.assertEqual(client.recv(1000)[:4], b"nap\n")
            time.sleep(2.5)
            self.assertEqual(self.podman.state("nap"), "running")
