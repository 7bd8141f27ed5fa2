import os
import shutil
import socket
import sysconfig
import venv
from pathlib import Path
from typing import ClassVar

import pytest

from tests.interop.children import PATIENCE, Child, InteropTestCase, said_by

pytestmark = [pytest.mark.whole, pytest.mark.by_turns]

_EXAMPLE = Path(__file__).parent.parent / "examples/matcher-plugin"

_RULES = """\
[listen public]
endpoint = 127.0.0.1:0

[route people]
match   = finger user=alice,bob
backend = 127.0.0.1:{port}
"""

_UNSET = [f"--unset={name}" for name in os.environ if name.startswith(("PYTHON", "COV"))]
"""So that nothing but what is installed there can be found."""


class PluginExampleTests(InteropTestCase):
    python: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        venv.create(cls.folder / "venv", symlinks=True)
        cls.python = cls.folder / "venv/bin/python"
        here = sysconfig.get_path("purelib")
        environment = {"base": str(cls.folder / "venv"), "platbase": str(cls.folder / "venv")}
        there = Path(sysconfig.get_path("purelib", "venv", environment))
        # What is installed here is there too, editable installs included.
        (there / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        source = cls.folder / "source"
        shutil.copytree(_EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "*.cache"))
        cls.output("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", source)
        shutil.move(source / "tests", cls.folder / "tests")
        shutil.rmtree(source)

    @classmethod
    def output(cls, *arguments: str | Path) -> str:
        """Run its Python, which must succeed, far from the sources; and give what it says."""
        command = ("--chdir", cls.folder, *_UNSET, cls.python, *arguments)
        return said_by("env", *command, timeout=600)

    def test_own_tests_of_the_example(self) -> None:
        options = ("-p", "no:cacheprovider", "--rootdir", self.folder)
        self.assertIn("2 passed", self.output("-m", "pytest", *options, self.folder / "tests"))
        place = self.output("-c", "import txmux_finger; print(txmux_finger.__file__)")
        self.assertTrue(place.startswith(str(self.folder)), place)

    def test_listed_and_checked(self) -> None:
        listed = self.output("-m", "txmux", "matchers")
        self.assertRegex(listed, r"(?m)^finger +tcp +Finger, .* +txmux-finger 1\.0$")
        self.assertRegex(listed, r"(?m)^ssh +")
        # Rules with the matcher are checked.
        rules = self.folder / "checked.ini"
        rules.write_text(_RULES.format(port=79))
        self.assertIn("OK, 1 listener, 1 route", self.output("-m", "txmux", "check", rules))
        rules.write_text(_RULES.format(port=79).replace("alice", "a@b"))
        with self.assertRaises(AssertionError) as caught:
            self.output("-m", "txmux", "check", rules)
        self.assertIn(f"{rules}:5: [route people] match: finger user: 'a@b'", str(caught.exception))

    def test_served(self) -> None:
        """A query about a user that the route is for reaches the server, and another one is closed."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(PATIENCE)
            rules = self.folder / "served.ini"
            rules.write_text(_RULES.format(port=server.getsockname()[1]))
            twist = (self.python, "-m", "twisted", "--log-format=text")
            mux = self.own(Child("env", *_UNSET, *twist, "txmux", "--rules", rules))
            port = int(mux.wait_for(r"listening on 127\.0\.0\.1:(\d+) for")[1])
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
                client.sendall(b"/W alice\r\n")
                accepted, _ = server.accept()
                with accepted:
                    self.assertEqual(accepted.recv(100), b"/W alice\r\n")
                    accepted.sendall(b"In real life: Alice\r\n")
                self.assertEqual(client.recv(100), b"In real life: Alice\r\n")
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
                client.sendall(b"mallory\r\n")
                self.assertEqual(client.recv(100), b"")
