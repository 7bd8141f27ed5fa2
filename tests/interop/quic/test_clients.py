"""HTTP/3 clients that are not aioquic: Chromium, curl, and the client of ngtcp2."""

import os
import sys
from typing import ClassVar
from unittest import SkipTest

from tests.browser.driving import Browser
from tests.interop.quic.case import QuicServers, logged, require_curl, run_mux
from tests.interop.quic.content import content
from tests.support.kit import InteropTestCase, Record, mounted, output_of, require_program, run

_MIB = 1024 * 1024
_CURL = """
import sys
from curl_cffi import Curl, CurlOpt
from curl_cffi.const import CurlHttpVersion

name, port = sys.argv[1:]
curl = Curl()
curl.setopt(CurlOpt.URL, f"https://{name}:{port}/4194304".encode())
curl.setopt(CurlOpt.RESOLVE, [f"{name}:{port}:127.0.0.1".encode()])
curl.setopt(CurlOpt.HTTP_VERSION, CurlHttpVersion.V3ONLY)
curl.setopt(CurlOpt.SSL_VERIFYPEER, 0)
curl.setopt(CurlOpt.SSL_VERIFYHOST, 0)
curl.setopt(CurlOpt.WRITEDATA, sys.stdout.buffer)
curl.perform()
"""
_HOSTS = "--host-resolver-rules=MAP *.example.com 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


class ClientTests(InteropTestCase):
    """Each comes to the server that it names, and gets what that gives."""

    servers: ClassVar = QuicServers(site=(), shop=())

    def setUp(self) -> None:
        self.mux = run_mux(self, self.servers.rules(shop="alpn=h3"))

    def routes(self) -> list[Record]:
        lines = logged(self.mux)
        self.assertEqual([line["route"] for line in lines], ["site", "shop"], lines)
        for line in lines:
            facts = line["facts"]
            self.assertEqual(facts["sni"], f"{line['route']}.example.com")
            self.assertEqual((facts["quic"], facts["tls"], facts["alpn"]), ("1", "1.3", "h3"))
        return lines

    def test_chromium_with_shuffled_hello(self) -> None:
        # By its one connection, a browser would ask for the other site, too.
        for name, count in (("site", 1000), ("shop", _MIB)):
            origin = f"{name}.example.com:{self.mux.port}"
            forced = f"--origin-to-force-quic-on={origin}"
            browser = self.own(Browser(forced, _HOSTS, self.certificate.trusted))
            browser.open(f"https://{origin}/{count}")
            self.assertEqual(browser.text("pre").encode(), content(name, count))
        for line in self.routes():
            self.assertTrue(line["facts"]["ja4"].startswith("q13d03"))

    def test_curl(self) -> None:
        require_curl()
        for name in ("site", "shop"):
            got = output_of(sys.executable, "-c", _CURL, f"{name}.example.com", str(self.mux.port))
            self.assertEqual(got, content(name, 4 * _MIB))
        self.routes()

    def test_ngtcp2(self) -> None:
        for name in ("site", "shop"):
            self.assertEqual(self._download(name, 2 * _MIB), content(name, 2 * _MIB))
        self.routes()

    def test_another_network(self) -> None:
        """It changes its network on purpose, and takes another connection ID: it goes on if the default is its server."""
        default = f"endpoint = udp:127.0.0.1:0\ndefault = udp:127.0.0.1:{self.servers['site'].port}"
        rules = self.servers.rules(shop="alpn=h3").replace("endpoint = udp:127.0.0.1:0", default)
        self.mux.stop()
        self.mux = run_mux(self, rules)
        got = self._download("site", 8 * _MIB, "--change-local-addr=30ms")
        self.assertEqual(got, content("site", 8 * _MIB))
        lines = logged(self.mux)
        self.assertEqual([line["route"] for line in lines], ["site", None])
        self.assertEqual({line["server"] for line in lines}, {lines[0]["server"]})

    def _download(self, name: str, count: int, *options: str) -> bytes:
        if os.geteuid():
            raise SkipTest("only root can give a program a file of hosts")
        program = require_program("gtlsclient")
        folder = self.make_folder()
        host = f"{name}.example.com"
        hosts = folder / "hosts"
        hosts.write_text(f"127.0.0.1 {host}\n")
        quiet = ("--quiet", "--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close")
        there = (host, str(self.mux.port), f"https://{host}/{count}")
        command = (*mounted({"/etc/hosts": hosts}), program, *quiet, f"--download={folder}")
        done = run(*command, *options, *there)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        return (folder / str(count)).read_bytes()
