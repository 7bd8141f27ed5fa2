"""Maps that chance has written, served by nginx and by txmux: whatever has no ``# LOOK:`` is served alike."""

import random
from functools import partial

from tests.interop.converted.sidebyside import SideBySideTestCase

_EMPTY = '""'
_COUNT = 30
_SEED = 23
_GROUPS = ("one", "two", "three", "four")
_DOMAINS = ("example.com", "example.org", "x.example.com")
_LABELS = ("a", "b", "www", "mail")
_NAMES = (*(f"{label}.{domain}" for label in _LABELS for domain in _DOMAINS), *_DOMAINS)
_EXPRESSIONS = (
    r"~^www\.", r"~\.example\.org$", r"~*^MAIL\.", r"~*^(?<who_is>a|b)\.x\.", "~example", "~^$",
    "~.", r"~^a\..*\.com$", "~[.]x[.]", r"~^[a-z]+\.example\.(com|org)$", r'"~^b\.|\.org$"',
)  # fmt: skip
_VERSIONS = ('""', "TLSv1.2", "TLSv1.3", "~^TLSv1")
_PROTOCOLS = (r"~\bh2\b", r"~\bhttp/1\.1\b", "acme-tls/1", r'"~(^|,)xmpp-client(,|$)"', '""')
_TOGETHER = (
    *(f'"TLSv1.{n}:{name}"' for n in (2, 3) for name in _NAMES),
    *('":"', '"TLSv1.3:"', r'"~^TLSv1\.2:"', r'"~^TLSv1\.[23]:www\."', r'"~:.*\.example\.org$"'),
    r'"~\.com$"',
)
_OFFERS = ("", "alpn=h2,http/1.1", "alpn=http/1.1", "alpn=acme-tls/1", "alpn=xmpp-client")
_SOURCES = ("", "", " from 127.0.0.2", " from 127.0.0.3", " from 127.0.0.9")


class Writer:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def configuration(self) -> str:
        """Write maps, of which each may lead to those before it, and a server that is led by the last one."""
        blocks, known = [self._names("m0", [])], ["$m0"]
        protocol = "$ssl_preread_protocol"
        versions = partial(self._some, protocol, keys=_VERSIONS)
        offered = partial(self._some, "$ssl_preread_alpn_protocols", keys=_PROTOCOLS)
        both = partial(self._some, f'"{protocol}:$ssl_preread_server_name"')
        writers = (self._names, versions, offered, self._networks, both)
        for number in range(1, self._random.randint(2, 4)):
            blocks.append(self._random.choice(writers)(f"m{number}", list(known)))
            known.append(f"$m{number}")
        groups = "\n".join(f"upstream {name} {{ server <{name}>; }}" for name in _GROUPS)
        server = f"server {{ listen 127.0.0.1:<port>; ssl_preread on; proxy_pass {known[-1]}; }}"
        return "\n".join([*blocks, groups, server, ""])

    def clients(self) -> list[str]:
        choice = self._random.choice
        found = ["ssh", "http"]
        for _ in range(12):
            name, offers = choice((*_NAMES, "none.test", "")), choice(_OFFERS)
            words = filter(None, ("hello", name, offers, choice(("", "old"))))
            found.append(" ".join(words) + choice(_SOURCES))
        return list(dict.fromkeys(found))

    def _names(self, name: str, known: list[str]) -> str:
        choice = self._random.choice
        hostnames = self._random.random() < 0.7
        kinds = ["{0}.{1}", "expression", '""']
        kinds += ["*.{1}", ".{1}", "{0}.*"] * hostnames
        keys: dict[str, str] = {}
        for _ in range(self._random.randint(1, 6)):
            if (key := choice(kinds)) == "expression":
                key = choice(_EXPRESSIONS)
            else:
                key = key.format(choice(_LABELS), choice(_DOMAINS))
            # nginx takes no wildcard twice, whether it begins with a star or a dot.
            keys.setdefault(key.lstrip("*."), key)
        lines = ["hostnames;"] * hostnames
        lines += [f"{key} {choice((*_GROUPS, _EMPTY, *known))};" for key in keys.values()]
        return self._map("$ssl_preread_server_name", name, lines, known)

    def _networks(self, name: str, _: list[str]) -> str:
        near, one, rest = (self._random.choice(_GROUPS) for _ in range(3))
        return f"geo ${name} {{ default {rest}; 127.0.0.0/29 {near}; 127.0.0.2 {one}; }}"

    def _some(self, source: str, name: str, known: list[str], keys: tuple[str, ...] = ()) -> str:
        """Write a map of some of these, or of four that are of both versions and names."""
        some = keys or self._random.sample(_TOGETHER, 4)
        chosen = [key for key in some if self._random.random() < 0.6]
        lines = [f"{key} {self._random.choice((*_GROUPS, *known))};" for key in chosen]
        return self._map(source, name, lines, known)

    def _map(self, source: str, name: str, lines: list[str], known: list[str]) -> str:
        if self._random.random() < 0.7:
            lines = [*lines, f"default {self._random.choice((*_GROUPS, *known))};"]
        return f"map {source} ${name} {{ {' '.join(lines)} }}"


class RandomTests(SideBySideTestCase):
    program = "nginx"

    def test_same_servers_answer(self) -> None:
        unlooked = 0
        for seed in range(_SEED, _SEED + _COUNT):
            writer = Writer(seed)
            text, clients = writer.configuration(), writer.clients()
            self.setUp()
            self.start(text)
            if "# LOOK:" not in self.found.text:
                unlooked += 1
                theirs, ours = self.answers([dict.fromkeys(clients, "")])
                self.assertEqual(ours, theirs, f"{seed}\n{text}\n{self.found.text}")
            self.doCleanups()
        self.assertGreater(unlooked, _COUNT * 3 // 4)
