"""A Debian with nothing but Python: what README and docs say works there."""

import shutil
import socket
from typing import ClassVar

from tests.interop.children import InteropTestCase
from tests.packaging.building import CHECKOUT, checkout_files
from tests.packaging.roots import Copy, check_relay, require_long, root_of

_INSTALL = "set -e; cd /checkout; python3 -m venv /venv; /venv/bin/pip install --quiet ."


class BareRootTests(InteropTestCase):
    """Debian's smallest system, with python3 and python3-venv, and a checkout in it."""

    copy: ClassVar[Copy]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_long()
        checkout = cls.folder / "checkout"
        for name in checkout_files():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, checkout / name)
        cls.copy = Copy(cls.folder, root_of("bookworm", "python3", "python3-venv"))
        cls.copy.put(checkout, "checkout")

    def answer(self, port: str, question: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=60) as client:
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
        self.assertRegex(self.answer(port, request), rb"^HTTP/1\.1 200 ")
        self.assertEqual(self.answer(port, b"PING\r\n"), b"+PONG\r\n")

    def test_tests(self) -> None:
        said = self.copy.do("/checkout/script/test", "-q", "tests/wire", "tests/test_docs.py")
        self.assertRegex(said, r"\d+ passed")
        self.assertNotIn("failed", said)

    def test_install(self) -> None:
        self.copy.do("sh", "-c", _INSTALL)
        said = self.copy.do("/venv/bin/txmux", "check", "/checkout/examples/rules.ini")
        self.assertIn("OK, 1 listener, 3 routes, 2 backends", said)
        check_relay(self, self.copy)
