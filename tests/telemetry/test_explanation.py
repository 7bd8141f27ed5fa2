import json
from typing import Any

from tests.cli.support import CommandTestCase
from tests.cli.test_explain import RULES
from txmux.telemetry.explanation import explained_layers, folded_routes, taken_by

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


class LayersTests(CommandTestCase):
    text = RULES

    def test_winner_and_undecided(self) -> None:
        self.assertEqual(
            self.explain("--text", r"SSH-2.0-x\r\n", "--from", "192.0.2.1"),
            r"""listener public: 11 bytes from 192.0.2.1: SSH-2.0-x\r\n

   route   match                      says
>  ssh     ssh                        match at byte 4
   web     2 lines                    no at byte 4
           http host=www.example.com  no at byte 4
           payload text=HI            no at byte 1
   inside  any                        not asked: 'from' does not name 192.0.2.1

decision  at byte 4: route ssh, to backend ssh-server (127.0.0.1:22, 127.0.0.1:23)
learnt    software=x
""",
        )
        self.assertEqual(
            self.explain("--text", "H"),
            """listener public: 1 byte: H

  route   match                      says
  ssh     ssh                        no at byte 1
  web     2 lines                    undecided, needs up to 32768, which is peek_limit
          http host=www.example.com  undecided, needs up to 32768, which is peek_limit
          payload text=HI            undecided, needs up to 2
  inside  any                        not asked: it is only for some networks; give the client's address as 'from'

decision  with these bytes: undecided, waits for more, for route web
deadline  after 3s, or when the client finishes sending: default, reset
""",
        )

    def test_deadline_decides_without_a_byte(self) -> None:
        out = self.explain("--text", "")
        self.assertIn("listener public: 0 bytes\n", out)
        self.assertIn("undecided, needs up to 4\n", out)
        decision = (
            "decision  no byte: undecided, waits for more\n"
            "deadline  after 3s: route silent, to backend ssh-server (127.0.0.1:22, 127.0.0.1:23)\n"
            "          if the client finishes sending before that: close\n"
        )
        self.assertEqual(out[-len(decision) :], decision)
        self.rules.write_text(RULES.replace("default ", "peek_limit = 50\ndefault "))
        out = self.explain("--file", self.write("head", "GET / HTTP/1.1\r\n" + "a" * 99))
        self.assertIn(rf"50 bytes: GET / HTTP/1.1\r\n{'a' * 32}...", out)  # decision at peek limit
        self.assertIn("\ndecision  at byte 50, which is peek_limit: default, reset\n", out)

    def test_client_address_for_routes_and_listener(self) -> None:
        inside = self.explain("--text", "x", "--from", "::ffff:10.0.0.1")
        self.assertIn(">  inside  any                        match at byte 1\n", inside)
        outside = self.explain("--text", "x", "--from", "10.1.0.1")
        self.assertIn("not asked: 'not_from' names 10.1.0.1\n", outside)
        denied = self.explain("--text", "SSH-", "--from", "203.0.113.9")
        out = "at once: the listener's 'allow' or 'deny' keeps 203.0.113.9 out"
        self.assertIn(f"\ndecision  {out}\n", denied)
        self.assertNotIn("\n>", denied)
        self.rules.write_text(RULES.replace("deny     =", "allow ="))
        allowed = self.explain("--text", "SSH-", "--from", "203.0.113.9")
        self.assertIn("\ndecision  at byte 4: ", allowed)
        self.assertIn("at once", self.explain("--text", "SSH-", "--from", "192.0.2.1"))

    def test_notes_on_a_capture(self) -> None:
        [stream] = json.loads(self.explain("--json", "--text", "H"))["streams"]
        for key, note in (
            ("gap", "the capture lacks what the client sent after byte 1"),
            ("late", "the capture lacks the SYN"), ("server_first", "the server spoke first"),
        ):  # fmt: skip
            [its] = explained_layers({**stream, key: True}, stream["listeners"][0])
            [found] = [text for label, text in its.conclusion if label == "note"]
            self.assertIn(note, found)
            styles = ["dim", "yellow", "yellow", "yellow", "dim"]
            self.assertEqual([row.style for row in its.routes], styles)

    def test_layers_of_other_streams(self) -> None:
        """Datagrams, a capture with two ends, a time of day, an answer that the client waits for, and TLS that fails."""
        [stream] = json.loads(self.explain("--json", "--text", "SSH-2.0-x"))["streams"]
        [trace] = stream["listeners"]
        self.assertIsNone(trace["at_deadline"])
        decision = trace["decision"]
        end = {"by": "default", "text": "reset", "route": None, "after": 3.0}
        open_route = {**_ROUTE, "route": "ssh", "says": "undecided", "needs_up_to": 1}
        dry = {**open_route, "route": "dry", "dry_run": True}
        undecided = {"decision": None, "at_deadline": end, "routes": [dry, open_route]}
        silent = {**end, "by": "silent"}
        ends = {"client": "[2001:db8::1]:5", "server": "10.0.0.5:22"}
        tls = {**decision, "at": None, "by": "tls-failed", "text": "no certificate"}
        cases: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
            ({"datagrams": [9]}, {}, "a datagram of 9 bytes"), ({"datagrams": [5, 4]}, {}, ": 2 datagrams of 5, 4 bytes"),
            (ends, {"from": "2001:db8::1"}, " from [2001:db8::1]:5 to 10.0.0.5:22: SSH"),
            (ends, {"from": "192.0.2.1"}, " to 10.0.0.5:22, as if from 192.0.2.1: "),
            ({}, {"during": True, "time": "2026-12-01T12:00:00"}, " on Tue 2026-12-01 12:00 "),
            ({}, {"answers": ["250 OK"]}, "\nanswer the client gets 250 OK, since it waits for that"),
            ({}, {"decision": tls}, "\ndecision before TLS: no certificate"),
            ({}, {"decision": {**decision, "at": None}}, "\ndecision at once, before any byte: route ssh"),
            ({"datagrams": [9]}, {}, "\ndecision at datagram 4: "),
            ({"datagrams": [9], "gap": True}, {}, "\nnote the capture lacks the end of a datagram"),
            ({"datagrams": [9]}, {**undecided, "at_deadline": silent}, "undecided, since they say nothing\ndeadline after 3s: forgotten; what"),
            ({"datagrams": [9]}, undecided, "\ndecision with these datagrams: undecided, waits for more, for route ssh\ndeadline after 3s: reset"),
            ({"datagrams": [9]}, undecided, "undecided, needs up to 1 datagram"),
            ({}, {**undecided, "bytes": 0, "at_deadline": {**end, "by": "tls-failed"}}, "no TLS yet: undecided, waits for more\ndeadline after 3s: reset"),
        )  # fmt: skip
        for of_stream, of_trace, expected in cases:
            [its] = explained_layers({**stream, **of_stream}, {**trace, **of_trace})
            rows = [(its.title,), *((route.verdict,) for route in its.routes), *its.conclusion]
            self.assertIn(expected, "\n".join(map(" ".join, rows)))
        outer = {**trace, "from": None, "inside": trace}
        whole, inner = explained_layers({**stream, "late": True, **ends}, outer)
        self.assertEqual(inner.title, "inside the tunnel, listener public: 9 bytes: SSH-2.0-x")
        labels = [[label for label, _ in its.conclusion] for its in (whole, inner)]
        self.assertEqual(labels, [["decision", "note"], ["decision"]])
        for outcome, text in (
            ({}, "route ssh"), (undecided, "undecided; at the deadline: default"),
            ({**undecided, "at_deadline": silent}, "silent"), ({"decision": tls}, "route ssh"),
            ({"decision": {**tls, "route": None}}, "tls-failed"),
        ):  # fmt: skip
            self.assertEqual(taken_by({**trace, **outcome}), text)
        shown, folded = folded_routes(whole.routes, {"no", "not asked", "match"})
        self.assertEqual([row.name for row in shown], ["ssh"])
        names = {key: [row.name for row in rows] for key, rows in folded.items()}
        self.assertEqual(names, {"no": ["web", "", ""], "not asked": ["inside"]})


class ConnectionTests(CommandTestCase):
    def shown(self, **changes: Any) -> str:
        """Explain a connection of which this is told; what is written after the routes."""
        told = {**_ONE["explanation"], "routes": [], "facts": {}, **changes.pop("told", {})}
        server = self.answering(document={**_ONE, "explanation": told, **changes})
        out = self.told(0, self.ask("explain", "--connection", "5f3a-1"))
        server.end()
        (self.run_folder / "rules.sock").unlink()
        return out.partition("\n\n")[2]

    def test_decided(self) -> None:
        server = self.answering(document=_ONE)
        self.assertEqual(self.ask("explain", "--connection", "5f3a-1"), (0, _SHOWN, ""))
        self.assertEqual(server.asked[0].path, "/api/connections/5f3a-1")

    def test_undecided_and_decided_elsewhere(self) -> None:
        route = {**_ROUTE, "at": 1, "error": "ValueError()"}
        open_route = {**_ROUTE, "says": "undecided", "needs_up_to": 8}
        told = {"by": None, "route": None, "bytes": 1, "routes": [route, open_route]}
        shown = self.shown(told=told, state="peeking", server=None, backend=None)
        self.assertIn("no at byte 1: its matcher raised ValueError()\n", shown)
        self.assertIn("undecided, needs up to 8\n", shown)
        self.assertTrue(shown.endswith("decision  with 1 byte: undecided, waits for more\n"), shown)
        shown = self.shown(told=told, state="introduction", server=None, backend=None)
        self.assertIn("none yet: waits for a PROXY protocol header\n", shown)
        self.assertIn("route api, in another process", self.shown(told={"bytes": None}))
        self.assertIn("learnt    software=x\n", self.shown(facts={"software": "x"}))
        silent = {"by": "silent", "route": None, "bytes": 0}  # decided elsewhere silent and unknown
        shown = self.shown(told=silent, backend="10.0.0.5:8443")
        self.assertIn("decision  silent, before any byte\nled to    10.0.0.5:8443\n", shown)
        self.answering(document={**_ONE, "explanation": None})
        out = self.told(0, self.ask("explain", "--connection", "5f3a-1"))
        self.assertIn("decision  not known\n", out)

    def test_rules_file_selects_the_service(self) -> None:
        server = self.answering(self.run_folder / "mine.sock", document=_ONE)
        self.answering(self.run_folder / "others.sock")
        rules = self.write("mine.ini", "")
        server.others["/api/status"] = {"pid": 1, "rules_path": str(rules)}
        for arguments in ([rules], ["--rules", rules]):
            ended = self.ask("explain", *arguments, "--connection", "5f3a-1")
            self.assertEqual(ended, (0, _SHOWN, ""))
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
        why = "there is no live connection of this ID"
        self.answering(document={"error": why}, status=404)
        self.assertEqual(self.ask("explain", "--connection", "1-1"), (1, "", f"{why}\n"))
