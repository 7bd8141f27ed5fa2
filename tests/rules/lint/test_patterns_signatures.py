"""Hints for lines of `payload` that a matcher would know better."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.detection.registry import installed_matchers
from txmux.rules.lint.patterns import cut_signatures
from txmux.rules.reading.parser import parse


class SignatureTests(SynchronousTestCase):
    def found(self, line: str) -> list[str]:
        rules = parse(
            f"[listen l]\nendpoint = :1\n[route r]\nmatch = {line}\nbackend = close\n", "x.ini"
        )
        return [problem.message for problem in cut_signatures(rules, installed_matchers())]

    def test_part_of_a_signature(self) -> None:
        for line, name in {
            "payload hex=2a320d0a": "redis",
            r"payload text=*2\r\n": "redis",
            "payload hex=160301": "tls",
            "payload text=@RSYNCD": "rsync",
            "payload hex=13426974": "bittorrent",
        }.items():
            message = (
                f"{line!r} is how some clients of '{name}' begin, and others begin otherwise; "
                f"'match = {name}' knows all of them"
            )
            self.assertEqual(self.found(line), [message])

    def test_nothing_is_certain(self) -> None:
        """Of bytes that are all of a signature, of several protocols, of none, words, and other places nothing is said."""
        for line in (
            "payload text=SSH-",
            "payload hex=0001",
            "payload text=HELLO",
            "payload hex=2a",
            "payload text=PROTO:1",
            "payload hex=2a320d0a mask=ffffffff",
            "payload hex=2a320d0a offset=4",
            "redis",
        ):
            self.assertEqual((line, self.found(line)), (line, []))
