"""Rules that another process reads again."""

from __future__ import annotations

import json

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.interfaces import Peeked
from txmux.rules.embedding import route
from txmux.rules.model import Files
from txmux.rules.packing import pack, unpack
from txmux.rules.reading.parser import is_as_read, load, read_again

MAIN = """
[txmux]
include = more/*.ini, more/x.ini, more/*.ini
access_log = logs/access.log
workers = 2
[listen public]
endpoint =
    127.0.0.1:0
    # comments are left out

    :0
deny = @lists/deny.txt
allow = @more/../lists/deny.txt, 10.0.0.0/8
accept_proxy_from = unix, @lists/empty.txt
[route ssh]
match = ssh
    payload text="[listen x]"
    not tls
backend = inner
[route web]
match = http host=~(a|b)[.]example[.]com
from = 10.0.0.0/8, 192.0.2.1
    2001:db8::/32
backend = 127.0.0.1:80
"""

MORE = """
[route last]
match = any
backend = inner
not_from = @near.txt
during = mon-fri 08:00-18:00 Europe/Paris
    22:00-06:00
[route end]
match = tls
terminate_tls = a.pem, /dev/null
alpn = h2
[backend inner]
server = 127.0.0.1:22
    unix:/run/x.sock
"""


class AgainTest(SynchronousTestCase):
    def setUp(self) -> None:
        folder = make_folder(self)
        self.main = folder / "rules.ini"
        self.more = folder / "more/x.ini"
        self.more.parent.mkdir()
        self.main.write_text(MAIN)
        self.more.write_text(MORE)
        self.lists = self.main.parent / "lists"
        self.lists.mkdir()
        for path, text in (
            (self.lists / "deny.txt", "# a list\n192.0.2.0/24\n2001:db8::/32 ; another\n"),
            (self.lists / "empty.txt", "# nothing yet\n"),
            (self.more.parent / "near.txt", "192.0.2.1"),
            (self.main.parent / "a.pem", ""),
        ):
            path.write_text(text)

    def test_same_rules_though_files_have_changed(self) -> None:
        rules = load(self.main)
        for path in (self.more, self.main.parent / "a.pem", *self.lists.iterdir()):
            path.unlink()
        self.main.write_text("")
        self.assertTrue(is_as_read(rules))
        sent = json.loads(json.dumps(attrs.asdict(rules.files)))
        for again in (read_again(Files(**sent)), unpack(pack(rules))):
            self.assertEqual(again.settings, rules.settings)
            self.assertEqual(again.listeners, rules.listeners)
            self.assertEqual(again.backends, rules.backends)
            for one, other in zip(again.routes, rules.routes, strict=True):
                self.assertEqual(
                    attrs.evolve(one, alternatives=()), attrs.evolve(other, alternatives=())
                )
                self.assertEqual(
                    [(a.text, a.negated) for a in one.alternatives],
                    [(a.text, a.negated) for a in other.alternatives],
                )
                for found, made in zip(one.alternatives, other.alternatives, strict=True):
                    for data in (b"SSH-2.0-x", b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n"):
                        peeked = Peeked(data)
                        self.assertIs(found.predicate(peeked), made.predicate(peeked))

    def test_made_in_python(self) -> None:
        rules = load(self.main)
        changed = [
            attrs.evolve(rules, files=Files()),
            attrs.evolve(rules, routes=(*rules.routes, route("any", "close"))),
            attrs.evolve(rules, settings=attrs.evolve(rules.settings, drain_timeout=1.0)),
        ]
        self.assertEqual([is_as_read(one) for one in changed], [False] * 3)
