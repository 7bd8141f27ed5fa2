"""What a service imports that needs none of the larger libraries."""

import re
import socket
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import PATIENCE, Child, make_folder
from txmux.detection.registry import installed_matchers

_RULES = """\
[txmux]
admin = off
workers = {workers}
[listen public]
endpoint = 127.0.0.1:0
[route site]
match = tls sni=www.example.com
backend = close
[route ssh]
match = ssh
backend = 127.0.0.1:{server}
"""

_PACKAGES = {
    "attr", "attrs", "constantly", "incremental", "twisted", "txmux", "typing_extensions", "zope",
}  # fmt: skip
"""All that may be imported beside the standard library: Twisted, attrs, zope.interface, and what these need themselves."""

_OF_TESTS = {"$coverage", "coverage", "setproctitle", "sitecustomize"}

_FORBIDDEN = {
    "twisted.internet.endpoints": "it imports TLS, and no endpoint of these rules needs it",
    "twisted.internet.ssl": "it imports OpenSSL",
    "twisted.names": "no server has a name",
    "twisted.protocols.tls": "it imports OpenSSL",
    "twisted.web": "nobody has asked the API for anything",
    "txmux.admin.site": "it imports twisted.web",
    "txmux.backends.connect.tls": "no server is spoken to by TLS",
    "txmux.cli.check": "it is another command",
    "txmux_convert": "it is another command's",
    "txmux.udp": "no endpoint is one of UDP",
    "txmux.features.sharing.client": "no limits are shared",
    "txmux.features.crowdsec.source": "no networks are told by one, and it imports twisted.web",
    "txmux.cli.demo": "this is not the demo",
    "txmux.matchers.http": "no rule names it; that all matchers are imported is what this would show",
    "txmux.testing": "it is for tests",
    "txmux.client.tls.terminator": "no TLS ends here",
}
"""Modules that take long to import, and why a plain start has no use for them; those in them are meant, too."""

_OF_TWISTED = {
    "asyncio", "calendar", "email", "http.client", "http.cookiejar", "ssl", "twisted.cred", "twisted.trial", "twisted.words", "unittest",
    "urllib.request", "zipfile",
}  # fmt: skip
"""What Twisted imports for names that no service uses, and for plugins that are not txmux's; `twist` has done so before txmux begins."""

_TELLING = """\
import atexit, os, sys

def tell(event="", *_):
    if event in ("", "os.kill"):  # by which `twist` ends after a signal
        for name in [*sys.modules]:
            os.write(2, f"imported {os.getpid()} {name}\\n".encode())

def tell_and_exit(status, exit=os._exit):  # by which a forked process ends
    tell()
    exit(status)

atexit.register(tell)
sys.addaudithook(tell)
os._exit = tell_and_exit
"""
"""What each process runs first (`site`). A worker may open no file."""


class PlainStartTest(SynchronousTestCase):
    def setUp(self) -> None:
        """Have Twisted write down which plugins there are: to find out, it imports them."""
        installed_matchers()

    def imported(self, command: Sequence[str | Path], workers: int = 1) -> set[str]:
        folder = make_folder(self)
        rules = folder / "rules.ini"
        (folder / "sitecustomize.py").write_text(_TELLING)
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(PATIENCE)
            rules.write_text(_RULES.format(workers=workers, server=server.getsockname()[1]))
            child = Child("env", f"PYTHONPATH={folder}", sys.executable, *command, rules)
            self.addCleanup(child.end)
            place = ("127.0.0.1", int(child.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1]))
            with socket.create_connection(place, PATIENCE) as client:
                client.sendall(b"SSH-2.0-test\r\n")
                relayed, _ = server.accept()
                with relayed:
                    relayed.settimeout(PATIENCE)
                    self.assertEqual(relayed.recv(100), b"SSH-2.0-test\r\n")
            with socket.create_connection(place, PATIENCE) as client:
                client.sendall(b"unknown")
                self.assertEqual(client.recv(100), b"")
        child.process.terminate()
        child.wait()
        told: dict[str, set[str]] = {}
        for pid, name in re.findall(r"^imported (\d+) (.+)$", child.output, re.MULTILINE):
            told.setdefault(pid, set()).add(name)
        supervisor = told.pop(str(child.pid))
        reactor = "twisted.internet.reactor"
        (starter,) = (names for names in told.values() if reactor not in names)
        own = [names - starter for names in told.values() if names is not starter]
        self.assertEqual(own, [{reactor}] * workers)
        return supervisor.union(*told.values())

    def check(self, found: set[str], more: Collection[str] = ()) -> None:
        self.assertIn("txmux.matchers.ssh", found)
        packages = {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names)
        others = {name for name in packages if not name.startswith("_")}
        self.assertEqual(others - _PACKAGES - _OF_TESTS, set())
        forbidden = tuple(f"{name}." for name in (*_FORBIDDEN, *more))
        self.assertEqual({name for name in found if f"{name}.".startswith(forbidden)}, set())

    def test_start(self) -> None:
        # `twist txmux` imports neither OpenSSL nor a web server, and of the matchers those that rules name.
        self.check(self.imported(["-m", "twisted", "txmux", "--rules"]))
        # `txmux run` imports less: what Twisted imports for names that no service uses.
        self.check(self.imported(["-m", "txmux", "run"], workers=2), _OF_TWISTED)
