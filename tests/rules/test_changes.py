from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.changes import changes, unchangeable
from txmux.rules.optional import missing
from txmux.rules.reading.parser import parse

_BASE = "[listen x]\nendpoint = :443\n"


class ChangesTest(SynchronousTestCase):
    def told(self, old: str, new: str) -> str:
        return str(changes(parse(_BASE + old, "r.ini"), parse(_BASE + new, "r.ini")))

    def test_routes(self) -> None:
        old = "[route c]\nmatch = ssh\nbackend = close\n[route d]\nmatch = tls\nbackend = close\n"
        new = "".join(f"[route {n}]\nmatch = redis\nbackend = close\n" for n in "abc")
        self.assertEqual(self.told(old, new), "2 routes new (a, b), 1 changed (c), 1 gone (d)")

    def test_each_change_names_some_so_that_a_line_stays_one(self) -> None:
        new = "".join(f"[route r{n}]\nmatch = redis\nbackend = close\n" for n in range(3000))
        named = ", ".join(f"r{n}" for n in range(20))
        self.assertEqual(self.told("", new), f"3000 routes new ({named} and 2980 more)")

    def test_told(self) -> None:
        ssh, tls = (f"[route {n}]\nmatch = {n}\nbackend = close\n" for n in ("ssh", "tls"))
        lead = "[route a]\nmatch = ssh\nbackend = b\n[backend c]\nserver = 127.0.0.1:9\nfallback = b\n[backend b]\nserver = "
        more = "[listen y]\nendpoint = :80\n"
        for old, new, said in (
            (ssh + tls, tls + ssh, "the order of routes changed"),
            # What leads to a backend does not change with it.
            (f"{lead}127.0.0.1:1\n", f"{lead}127.0.0.1:2\n", "1 backend changed (b)"),
            ("", more, "listener y opened"), (more, "", "listener y closed"),
            (more, f"{more}peek_limit = 5\n", "listener y changed"),
            ("", "[txmux]\nworkers = 2\ndrain_timeout = 5s\n",
             "workers, drain_timeout of [txmux] changed"),
            ("", "# so\n\n[txmux]\ndrain_timeout = 30s\n", ""),
        ):  # fmt: skip
            self.assertEqual(self.told(old, new), said)

    def test_keys_of_parts(self) -> None:
        if why := missing("shared_limits") or missing("remember"):
            raise SkipTest(why)
        new = "[txmux]\nshared_limits = redis://h:1/0\nremember = 5\ngrace = 1s\n"
        self.assertEqual(self.told("", new), "grace, remember, shared_limits of [txmux] changed")

    def test_connections_of_older_rules(self) -> None:
        new = parse(f"{_BASE}default = reset\n", "r.ini")
        changed = changes(parse(_BASE, "r.ini"), new)
        for older, more in (
            (0, ""),
            (1, "; 1 connection keeps older rules"),
            (2, "; 2 connections keep older rules"),
        ):
            self.assertEqual(changed.described(older), f"listener x changed{more}")

    def test_unchangeable(self) -> None:
        old = parse(_BASE, "r.ini").settings
        text = f"{_BASE}[txmux]\nworkers = 2\nrelay = portable\nuser = nobody\n"
        problems = unchangeable(old, parse(text, "r.ini").settings)
        self.assertEqual(
            [str(problem) for problem in problems],
            [
                f"r.ini:{line}: [txmux] {key}: cannot change while the service runs; restart it for that"
                for line, key in ((5, "relay"), (6, "user"))
            ],
        )
