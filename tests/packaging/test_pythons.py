"""Fresh systems: what README and docs say works on a Debian with nothing but Python, and the wheel on each Python that it is for."""

import re
import shutil
import socket
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

import pytest

from tests.interop.children import PATIENCE, InteropTestCase
from tests.packaging.building import CHECKOUT, build_wheel, checkout_files
from tests.packaging.roots import Copy, check_relay, root_of

_MAY_SUDO = """
set -e
useradd --create-home dev
printf 'Defaults env_keep += "PIP_*"\\ndev ALL=(ALL) NOPASSWD: ALL\\n' >/etc/sudoers.d/dev
chown -R dev /checkout
"""


@pytest.mark.long
class BareRootTests(InteropTestCase):
    """Debian's smallest system, with python3 and python3-venv, and a checkout in it."""

    copy: ClassVar[Copy]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        checkout = cls.folder / "checkout"
        for name in checkout_files():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, checkout / name)
        cls.copy = Copy(cls.folder, root_of("bookworm", "python3", "python3-venv", "sudo"))
        cls.copy.put(checkout, "checkout")

    def answer(self, port: str, question: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=PATIENCE) as client:
            client.sendall(question)
            return client.recv(100)

    def test_demo(self) -> None:
        child = self.own(self.copy.start("/checkout/script/demo", "--demo-port", "0"))
        for _ in range(10):  # it is patient for twenty seconds each time
            try:
                port = child.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1]
                break
            except AssertionError:
                self.assertIsNone(child.process.poll(), child.output)
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        self.assertRegex(self.answer(port, request), rb"^HTTP/1\.0 200 ")
        self.assertEqual(self.answer(port, b"PING\r\n"), b"+PONG\r\n")

    def test_tests(self) -> None:
        said = self.copy.do("/checkout/script/test", "-q", "tests/wire", "tests/test_docs.py")
        self.assertRegex(said, r"\d+ passed")
        self.assertNotIn("failed", said)

    def test_install(self) -> None:
        """What README says, by a user who may become root by sudo."""
        readme = (CHECKOUT / "README.md").read_text()
        (commands,) = re.findall(r"\n((?:\$ sudo .+\n)+)\$ txmux init", readme)
        commands = commands.replace("install txmux", "install .")
        self.copy.do("sh", "-c", _MAY_SUDO)
        self.by_user("set -e\ncd /checkout\n" + commands.replace("$ ", ""))
        self.by_user("cd && txmux init -o rules.ini && txmux check rules.ini")
        said = self.by_user("sudo txmux check /checkout/examples/rules.ini")
        self.assertIn("OK, 1 listener, 3 routes, 2 backends", said)
        self.assertIn("there is no socket of a service", self.by_user("sudo txmux status || true"))
        check_relay(self, self.copy, "/usr/local/bin/txmux")

    def by_user(self, script: str) -> str:
        return self.copy.do("su", "dev", "-c", script)


_PYTHON = ("python3", "python3-venv")
_UBUNTU = "http://archive.ubuntu.com/ubuntu"
_KEYRING = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
_INSTALL = (
    'set -e; python3 -m venv /venv; /venv/bin/pip install --quiet "$1[admin,cli,convert,pcap]"'
)


@pytest.mark.long
class PythonTests(InteropTestCase):
    """The wheel with its extras, in a virtual environment of a system that has just Python."""

    wheel: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.wheel = build_wheel(CHECKOUT, cls.folder)

    def serves(self, version: str, root: Path) -> None:
        copy = Copy(self.folder, root)
        copy.put(self.wheel, self.wheel.name)
        copy.put(CHECKOUT / "examples/rules.ini", "rules.ini")
        copy.do("sh", "-c", _INSTALL, "sh", f"/{self.wheel.name}")
        self.assertIn(f"Python {version}.", copy.do("/venv/bin/python", "--version"))
        self.assertIn("OK, 1 listener", copy.do("/venv/bin/txmux", "check", "/rules.ini"))
        self.assertNotIn("Warning", check_relay(self, copy))

    def ubuntu(self, suite: str) -> Path:
        """Give an Ubuntu with Python; newer Debians have its keys in the package ubuntu-keyring."""
        if not Path(_KEYRING).exists():
            raise SkipTest(f"there is no {_KEYRING}")
        components = {"mirror": _UBUNTU, "keyring": _KEYRING, "components": "main,universe"}
        return root_of(suite, *_PYTHON, script="gutsy", **components)

    def test_311(self) -> None:
        self.serves("3.11", root_of("bookworm", *_PYTHON))

    def test_312(self) -> None:
        self.serves("3.12", self.ubuntu("noble"))

    def test_313(self) -> None:
        self.serves("3.13", root_of("trixie", *_PYTHON))

    def test_314(self) -> None:
        self.serves("3.14", root_of("sid", *_PYTHON))
