"""A Debian with nothing but Python: what README and docs say works there."""

import re
import shutil
import socket
from typing import ClassVar

import pytest

from tests.interop.children import PATIENCE, InteropTestCase
from tests.packaging.building import CHECKOUT, checkout_files
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
        child.allow(300)
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
