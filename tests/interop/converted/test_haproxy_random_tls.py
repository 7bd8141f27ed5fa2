"""Frontends that end TLS, written by chance: whatever has no ``# LOOK:`` is served alike."""

from __future__ import annotations

import random

from tests.interop.converted.sidebyside import HaproxyTestCase
from tests.interop.servers import make_certificate

_COUNT = 8
_SEED = 5
_TESTS = (
    "{ ssl_fc_sni a.example }",
    "{ ssl_fc_sni -m end .example }",
    "{ ssl_fc_sni b.test a.example }",
    "{ ssl_fc_alpn h2 }",
    "{ ssl_fc_alpn http/1.1 }",
    "{ ssl_fc_has_sni }",
    "HTTP",
    "{ req.payload(0,4) -m str SSH- }",
    "{ src 127.0.0.2 }",
)
_CLIENTS = tuple(
    f"tls {hello}{said}{source}"
    for hello in ("a.example ", "c.example alpn=h2,http/1.1 ", "b.test alpn=http/1.1 ", "")
    for said in ("http", "ssh")
    for source in ("", " from 127.0.0.2")
)


class RandomTests(HaproxyTestCase):
    """Many frontends."""

    def test_alike(self) -> None:
        make_certificate(self.own_folder, "a.example")
        chance = random.Random(_SEED)
        sure = 0
        for _ in range(_COUNT):
            self.ports = [{}, {}]
            self.start(self.frontend(chance))
            if "# LOOK:" in self.found.text:
                continue
            sure += 1
            theirs, ours = self.answers([dict.fromkeys(_CLIENTS, "")])
            self.assertEqual(ours, theirs, self.found.text)
        self.assertGreaterEqual(sure, _COUNT // 2)

    def frontend(self, chance: random.Random) -> str:
        def condition() -> str:
            tests = (
                f"{chance.choice(('', '', '!'))}{one}"
                for one in chance.sample(_TESTS, chance.choice((1, 1, 2)))
            )
            return f"{chance.choice(('if', 'if', 'unless'))} {chance.choice((' ', ' or ')).join(tests)}"

        rules = [f"    use_backend {chance.choice('abc')} {condition()}" for _ in range(3)]
        if chance.random() < 0.4:
            rules.insert(0, f"    tcp-request content reject {condition()}")
        return "\n".join(
            [
                "frontend f",
                "    bind 127.0.0.1:<port> ssl crt <folder>/a.example.both alpn h2,http/1.1",
                "    tcp-request inspect-delay 1500ms",
                "    tcp-request content reject if WAIT_END FALSE",
                *rules,
                "    default_backend a",
                *(f"backend {name}\n    server s <{name}>" for name in "abc"),
                "",
            ]
        )
