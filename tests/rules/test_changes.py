from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.changes import changes, unchangeable
from txmux.rules.optional import missing
from txmux.rules.reading.parser import parse

_BASE = "[listen x]\nendpoint = :443\n"


class ChangesTest(SynchronousTestCase):
    def told(self, old: str, new: str) -> str:
        return str(changes(parse(_BASE + old, "r.ini"), parse(_BASE + new, "r.ini")))

    def test_told(self) -> None:
        """Of many changes some are named, so that a line stays one."""
        ssh, tls = (f"[route {n}]\nmatch = {n}\nbackend = close\n" for n in ("ssh", "tls"))
        route = "[route {}]\nmatch = redis\nbackend = close\n".format
        named = ", ".join(f"r{n}" for n in range(20))
        lead = "[route a]\nmatch = ssh\nbackend = b\n[backend c]\nserver = 127.0.0.1:9\nfallback = b\n[backend b]\nserver = "
        more = "[listen y]\nendpoint = :80\n"
        for old, new, said in (
            (ssh + tls, "".join(map(route, ("a", "b", "ssh"))), "2 routes new (a, b), 1 changed (ssh), 1 gone (tls)"),
            ("", "".join(route(f"r{n}") for n in range(3000)), f"3000 routes new ({named} and 2980 more)"),
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
        changed = changes(parse(_BASE, "r.ini"), parse(f"{_BASE}default = reset\n", "r.ini"))
        one, two = "1 connection keeps older rules", "2 connections keep older rules"
        for older, more in ((0, ""), (1, f"; {one}"), (2, f"; {two}")):
            self.assertEqual(changed.described(older), f"listener x changed{more}")

    def test_keys_of_parts(self) -> None:
        if why := missing("shared_limits") or missing("remember"):
            raise SkipTest(why)
        new = "[txmux]\nshared_limits = redis://h:1/0\nremember = 5\ngrace = 1s\n"
        self.assertEqual(self.told("", new), "grace, remember, shared_limits of [txmux] changed")

    def test_unchangeable(self) -> None:
        old = parse(_BASE, "r.ini").settings
        text = f"{_BASE}[txmux]\nworkers = 2\nrelay = portable\nuser = nobody\n"
        problems = unchangeable(old, parse(text, "r.ini").settings)
        expected = [
            f"r.ini:{line}: [txmux] {key}: cannot change while the service runs; restart it for that"
            for line, key in ((5, "relay"), (6, "user"))
        ]
        self.assertEqual([str(problem) for problem in problems], expected)
