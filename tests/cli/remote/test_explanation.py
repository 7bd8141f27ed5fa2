from typing import Any

from tests.cli.support import CommandTestCase

_NO = {"says": "no", "at": None, "needs_up_to": None, "error": None}
_ROUTE: dict[str, Any] = {
    **_NO, "route": "ssh", "excluded_by": None, "dry_run": False,
    "lines": [{**_NO, "match": "ssh", "says": None}], "inside": None,
}  # fmt: skip
_ONE: dict[str, Any] = {
    "id": "5f3a-1", "listener": "public", "client": "192.0.2.1:50001", "route": "api",
    "backend": "web", "server": "10.0.0.5:8443", "state": "relaying", "age_ms": 3_723_004.5,
    "facts": {},
    "explanation": {
        "by": "route", "route": "api", "bytes": 517, "facts": {"sni": "www.example.com"},
        "routes": [
            _ROUTE,
            {**_ROUTE, "route": "inner", "says": "not asked", "excluded_by": "from"},
            {**_ROUTE, "route": "night", "says": "not asked", "excluded_by": "during"},
            {**_ROUTE, "route": "dry", "says": "unknown", "dry_run": True},
            {
                **_ROUTE, "route": "api", "says": "match", "inside": "site",
                "lines": [{**_NO, "match": text, "says": None} for text in ("http", "tls")],
            },
        ],
    },
}  # fmt: skip
_SHOWN = """\
connection 5f3a-1 from 192.0.2.1:50001 on listener public: relaying, 1 h 2 min

   route                    match    says
   ssh                      ssh      no
   inner                    ssh      not asked: 'from' does not name the client's address
   night                    ssh      not asked: 'during' does not name the time when it came
   dry                      ssh      unknown; dry_run, so it decides nothing
>  api, in the TLS of site  2 lines  match
                            http
                            tls

decision  route api, after at most 517 bytes
led to    backend web (10.0.0.5:8443)
learnt    sni=www.example.com
note      its bytes are not stored, so it is not known at which byte each route was sure
"""


class ExplanationTests(CommandTestCase):
    def shown(self, **changes: Any) -> str:
        """Explain a connection of which this is told; what is written after the routes."""
        told = {**_ONE["explanation"], "routes": [], "facts": {}, **changes.pop("told", {})}
        server = self.answering(document={**_ONE, "explanation": told, **changes})
        code, out, err = self.ask("explain", "--connection", "5f3a-1")
        server.end()
        (self.run_folder / "rules.sock").unlink()
        self.assertEqual((code, err), (0, ""))
        return out.partition("\n\n")[2]

    def test_decided(self) -> None:
        server = self.answering(document=_ONE)
        self.assertEqual(self.ask("explain", "--connection", "5f3a-1"), (0, _SHOWN, ""))
        self.assertEqual(server.asked[0].path, "/api/connections/5f3a-1")

    def test_undecided(self) -> None:
        route = {**_ROUTE, "at": 1, "error": "ValueError()"}
        open_route = {**_ROUTE, "says": "undecided", "needs_up_to": 8}
        told = {"by": None, "route": None, "bytes": 1, "routes": [route, open_route]}
        shown = self.shown(told=told, state="peeking", server=None, backend=None)
        self.assertIn("no at byte 1: its matcher raised ValueError()\n", shown)
        self.assertIn("undecided, needs up to 8\n", shown)
        self.assertTrue(shown.endswith("decision  with 1 byte: undecided, waits for more\n"), shown)
        shown = self.shown(told=told, state="introduction", server=None, backend=None)
        self.assertIn("none yet: waits for a PROXY protocol header\n", shown)

    def test_decided_elsewhere_silent_and_unknown(self) -> None:
        self.assertIn("route api, in another process", self.shown(told={"bytes": None}))
        silent = {"by": "silent", "route": None, "bytes": 0}
        shown = self.shown(told=silent, backend="10.0.0.5:8443")
        self.assertIn("decision  silent, before any byte\nled to    10.0.0.5:8443\n", shown)
        self.answering(document={**_ONE, "explanation": None})
        code, out, _ = self.ask("explain", "--connection", "5f3a-1")
        self.assertEqual(code, 0)
        self.assertIn("decision  not known\n", out)

    def test_rules_file_selects_the_service(self) -> None:
        server = self.answering(self.run_folder / "mine.sock", document=_ONE)
        self.answering(self.run_folder / "others.sock")
        rules = self.write("mine.ini", "")
        server.others["/api/status"] = {"pid": 1, "rules_path": str(rules)}
        for arguments in ([rules], ["--rules", rules]):
            code, out, _ = self.ask("explain", *arguments, "--connection", "5f3a-1")
            self.assertEqual((code, out), (0, _SHOWN))
        self.assertEqual(len(server.asked), 4)

    def test_wrong_usage_and_unknown_connection(self) -> None:
        rules = self.write("mine.ini", "")
        for arguments in (
            ["--text", "a"],
            [rules, "--text", "a", "--admin", "unix:/x"],
            [rules, "--connection", "1-1", "--from", "192.0.2.1"],
            [rules, "--rules", rules, "--connection", "1-1"],
            ["--connection", "1-1", "--text", "a"],
        ):
            self.assertEqual(self.ask("explain", *arguments)[0], 2, arguments)
        self.assertEqual(self.ask("explain", "--connection", "1-1")[0], 3)
        self.answering(document={"error": "there is no live connection of this ID"}, status=404)
        code, _, err = self.ask("explain", "--connection", "1-1")
        self.assertEqual((code, err), (1, "there is no live connection of this ID\n"))
