import io
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.logger import LogLevel, capturedLogs
from twisted.python.usage import UsageError
from twisted.trial.unittest import TestCase

from tests.support.changes import install
from tests.support.kit import change_constants, connect, has_ipv6, make_folder
from txmux.cli.demo import demo_service
from txmux.cli.run import program
from txmux.cli.twist import Options, makeService


class OptionsTest(TestCase):
    def setUp(self) -> None:
        self.rules = make_folder(self) / "rules.ini"
        self.said = io.StringIO()
        change_constants(self, sys, stderr=self.said)

    def options(self, *words: str) -> Options:
        options = Options()
        options.parseOptions(words)
        return options

    def of_rules(self, text: str) -> Any:
        """Make the service of these rules."""
        self.rules.write_text(text)
        return makeService(self.options("--rules", str(self.rules)))

    def exits(self, run: Callable[[], object]) -> tuple[object, str]:
        with self.assertRaises(SystemExit) as caught:
            run()
        return caught.exception.code, self.said.getvalue()

    def test_wrong_options(self) -> None:
        either, wrong = "either --rules FILE or --demo", "has no effect with --"
        for words, message in {
            "": either, "--demo --rules x": either,
            "--demo --pidfile x": f"--pidfile {wrong}demo", "--rules x --demo-port 1": f"--demo-port {wrong}rules",
        }.items():  # fmt: skip
            with self.assertRaisesRegex(UsageError, message):
                self.options(*words.split())
        # A file without an option has advice.
        for before in ((), ("run",)):
            with self.assertRaisesRegex(UsageError, r"write: twist txmux --rules rules\.ini$"):
                self.options(*before, "rules.ini")
        # Every error of bad rules is said.
        self.rules.write_text("[listen x]\nendpiont = :443\n[route r]\n")
        status, said = self.exits(lambda: self.options("--rules", str(self.rules)))
        self.assertEqual(status, os.EX_CONFIG)
        lines = said.splitlines()
        self.assertEqual(len(lines), 3)
        self.assertIn("did you mean 'endpoint'?", lines[0])

    def test_problems_of_plugins_are_warnings(self) -> None:
        install(self, program, problem="the plugin module x cannot be used")
        self.rules.write_text("[listen x]\nendpoint = 127.0.0.1:0\n")
        self.assertEqual(len(self.options("--rules", str(self.rules)).rules.listeners), 1)
        self.assertEqual(self.said.getvalue(), "warning: the plugin module x cannot be used\n")
        # The demo is for this machine only.
        (listener,) = demo_service(8443).rules.listeners
        self.assertEqual(listener.endpoints, ("127.0.0.1:8443", "[::1]:8443")[: 1 + has_ipv6()])

    async def test_serves_and_logs_warnings_of_rules_once(self) -> None:
        service = self.of_rules(
            "[txmux]\nadmin = off\naccess_log = off\n[listen x]\nendpoint = 127.0.0.1:0\n[backend b]\nserver = h:1\n"
        )
        with capturedLogs() as events:
            service.privilegedStartService()
            service.startService()
        await service.stopService()
        warnings = [event["warning"] for event in events if event["log_level"] is LogLevel.warn]
        message = "[backend b]: nothing uses it; name it in a route, or remove it"
        self.assertEqual(warnings, [f"{self.rules}:6: warning: {message}"])

    def test_errors_found_at_the_start(self) -> None:
        # One line if it cannot listen.
        for start in ("startService", "privilegedStartService"):
            service = self.of_rules("[listen x]\nendpoint = 192.0.2.1:0\n")
            status, said = self.exits(getattr(service, start))
            self.assertEqual(status, 1)
            last = said.splitlines()[-1]
            why = f"{self.rules}:2: [listen x] endpoint: cannot listen at 192.0.2.1:0: "
            self.assertTrue(last.startswith(why), last)
        # Errors of the rules have exit code 78.
        (self.rules.parent / "bad.pem").write_text("nothing")
        route = "[route r]\nmatch = tls\nterminate_tls = bad.pem\nbackend = close\n"
        service = self.of_rules(f"[listen x]\nendpoint = 127.0.0.1:0\n{route}")
        status, said = self.exits(service.startService)
        self.assertEqual(status, os.EX_CONFIG)
        self.assertIn("[route r] terminate_tls: ", said)
        # The port of the demo is taken.
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            service = makeService(self.options("--demo", "--demo-port", str(port)))
            status, said = self.exits(service.startService)
        self.assertEqual(status, 1)
        self.assertIn(f"cannot listen at 127.0.0.1:{port}: Address already in use", said)
        self.assertTrue(said.endswith("; --demo-port chooses another one\n"), said)

    async def test_demo(self) -> None:
        change_constants(self, sys, stdout=(out := io.StringIO()))
        service = makeService(self.options("--demo", "--demo-port", "0"))
        service.startService()
        mux = next(iter(service))  # type: ignore[call-overload]
        port = mux.ports[0].getHost().port
        self.assertIn(f"curl http://localhost:{port}/", out.getvalue())
        client = await connect(self, port)
        client.send(b"PING\r\n")
        await client.has(7)
        client.close()
        await client.is_lost()
        await service.stopService()
