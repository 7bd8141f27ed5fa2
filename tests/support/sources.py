"""The sources that txmux asks, each with the rules that use it and a peer that is good at first."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs

from tests.interop.pebble import Pebble
from tests.interop.servers import start_redis
from tests.support import hostile
from tests.support.certificates import Identity, make_authority
from tests.support.places import country, write_places
from tests.support.undone import Cleans

_SECTIONS = """
[listen public]
endpoint = 127.0.0.1:0
{listener}
[route good]
under = *
match = payload text=E
backend = 127.0.0.1:{server}
{sections}
"""


@attrs.define
class Stage:
    """What a source needs to be asked.

    Attributes:
        settings: Lines of ``[txmux]``, in which PORT is the peer's.
        sections: Other sections.
        listener: Lines of the listener of the good clients.
        good: See `HostilePeer`.
        file: Instead of a peer.
        visits: What other clients send, and seconds from one to the next; to the listener "limited" if there is one.
        later: Seconds until it is hostile, from when the service serves; 0 is from the beginning.
    """

    settings: str = ""
    sections: str = ""
    listener: str = ""
    good: int | hostile.Respond | None = None
    context: ssl.SSLContext | None = None
    file: Path | None = None
    visits: tuple[bytes, float] | None = None
    later: float = 4.0

    def rules(self, port: int, server: int, settings: str) -> str:
        """Return rules in which the peer is at a port, and the server of good clients at another."""
        own = self.settings.replace("PORT", str(port))
        return f"[txmux]\n{settings}{own}{self.sections_for(port, server)}"

    def sections_for(self, port: int, server: int) -> str:
        """Return all sections of them but ``[txmux]``."""
        text = _SECTIONS.format(listener=self.listener, sections=self.sections, server=server)
        return text.replace("PORT", str(port))


def visit(test: Cleans, port: int, sent: bytes, period: float) -> None:
    over = threading.Event()

    def come() -> None:
        while not over.wait(period):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as end:
                end.sendall(sent)
                end.recv(1 if sent else 0)

    thread = threading.Thread(target=come)
    thread.start()
    test.addCleanup(thread.join)
    test.addCleanup(over.set)


@attrs.frozen
class Row:
    """A source.

    Attributes:
        kinds: Which kinds of `txmux.telemetry.sources` it is asked for.
        prepare: Makes its stage in a folder.
        dialect: Of its peer; files have none.
        has_tls: Whether it is asked by TLS.
        is_kept: Whether it has connections that stay, which can be forgotten.
        seconds: How long it is tried at most.
    """

    kinds: frozenset[str]
    prepare: Callable[[Cleans, Path], Stage]
    dialect: hostile.Dialect | None = None
    has_tls: bool = False
    is_kept: bool = False
    seconds: float = 75.0

    @property
    def ways(self) -> list[str]:
        if self.dialect is None:
            return [*hostile.FILE_WAYS]
        return [
            *(way for way in self.dialect.ways if way != hostile.FORGOTTEN or self.is_kept),
            *([hostile.NO_HANDSHAKE] if self.has_tls else []),
        ]


def _crowdsec(_: Cleans, folder: Path) -> Stage:
    (folder / "key").write_text("a0b1c2d3e4f5\n")
    decisions = hostile.http_answer(json.dumps({"new": None, "deleted": None}).encode())
    deny = "deny = crowdsec:http://127.0.0.1:PORT\n"
    key = f"crowdsec_key = {folder}/key\n"
    return Stage(key, listener=deny, good=lambda _: decisions, later=12)


def _consul(_: Cleans, __: Path) -> Stage:
    service = {"Service": "web", "Address": "127.0.0.1", "Port": 9, "Weights": None}
    body = json.dumps([{"Node": {"Address": "127.0.0.1"}, "Service": service, "Checks": []}])

    def answer(request: bytes) -> bytes:
        time.sleep(0.2 * (b"index=" in request))
        return hostile.http_answer(body.encode(), fields="X-Consul-Index: 7\r\n")

    rules = _web("consul:web\nresolve = 5s")
    return Stage("consul = http://127.0.0.1:PORT\n", rules, good=answer)


def _web(server: str) -> str:
    return f"[route web]\nmatch = http\nbackend = web\n[backend web]\nserver = {server}\n"


def _dns(query: bytes) -> bytes:
    return hostile.dns_answer(query)


def _names(_: Cleans, __: Path) -> Stage:
    rules = _web("web.test:9\nresolve = 5s")
    return Stage("resolvers = 127.0.0.1:PORT\n", rules, good=_dns)


def _names_of_clients(_: Cleans, __: Path) -> Stage:
    rules, visits = (
        _web("{host}:9\nallow_names = *.test"),
        b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n",
    )
    return Stage("resolvers = 127.0.0.1:PORT\n", rules, good=_dns, visits=(visits, 0.5))


def _redis(test: Cleans, folder: Path) -> Stage:
    redis = start_redis(folder)
    test.addCleanup(redis.end)
    rules = "[listen limited]\nendpoint = 127.0.0.1:0\nconnection_rate_per_source = 50/s burst=20\n"
    rules += "max_connections_per_source = 4\n"
    shared = "shared_limits = redis://127.0.0.1:PORT\n"
    return Stage(shared, rules, good=redis.port, visits=(b"", 0.01))


def _pebble(test: Cleans, folder: Path) -> tuple[Pebble, str, str]:
    pebble = Pebble(folder, valid=True)
    test.addCleanup(pebble.end)
    sections = "[route site]\nmatch = tls sni=www.example.com,www.example.org\nterminate_tls = acme\nbackend = close\n"
    return pebble, pebble.settings(folder / "acme"), sections


def _certificates(test: Cleans, folder: Path) -> Stage:
    redis = _redis(test, folder)
    _, settings, sections = _pebble(test, folder)
    (folder / "password").write_text("x")
    return Stage(redis.settings + settings, sections, good=redis.good, later=0)


def _acme(test: Cleans, folder: Path) -> Stage:
    pebble, settings, sections = _pebble(test, folder)
    settings = settings.replace(f":{pebble.port}/", ":PORT/")
    context = tls_context(pebble.authority, folder)
    return Stage(settings, sections, good=pebble.port, context=context, later=0)


def tls_context(authority: Identity, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("127.0.0.1").write(folder / "peer.pem", key=True))
    return context


def _check(words: str) -> Callable[[Cleans, Path], Stage]:
    def prepare(_: Cleans, __: Path) -> Stage:
        good = hostile.http_answer(b"well") if words == "http" else b"+PONG\r\n"
        rules = _web(f"127.0.0.1:PORT\ncheck = {words} interval=2s timeout=1s")
        return Stage("", rules, good=lambda _: good)

    return prepare


def _checked_tls(_: Cleans, folder: Path) -> Stage:
    authority = make_authority()
    ca = authority.write(folder / "ca.pem")
    check = "check = http interval=2s timeout=1s"
    rules = _web(f"127.0.0.1:PORT\ntls = yes\ntls_ca = {ca}\n{check}")
    return Stage("", rules, context=tls_context(authority, folder), later=0)


def _networks(_: Cleans, folder: Path) -> Stage:
    file = folder / "list.txt"
    file.write_text("192.0.2.0/24\n")
    return Stage(listener=f"deny = @{file}\n", file=file)


def _geo(_: Cleans, folder: Path) -> Stage:
    file = folder / "places.mmdb"
    write_places(file, {"192.0.2.0/24": country("FR")})
    return Stage(f"geo_databases = {file}\n", listener="deny = geo:country=FR\n", file=file)


ROWS = {
    "crowdsec": Row(frozenset({"crowdsec"}), _crowdsec, hostile.HTTP),
    "consul": Row(frozenset({"consul"}), _consul, hostile.HTTP, is_kept=True),
    "names": Row(frozenset({"names"}), _names, hostile.DNS),
    "names of clients": Row(frozenset({"names"}), _names_of_clients, hostile.DNS),
    "redis": Row(frozenset({"bans", "limits"}), _redis, hostile.RESP, is_kept=True),
    "certificates": Row(frozenset({"certificates"}), _certificates, hostile.RESP, is_kept=True),
    "acme": Row(frozenset({"acme"}), _acme, hostile.HTTP, has_tls=True),
    "check http": Row(frozenset(), _check("http"), hostile.HTTP, seconds=20),
    "check redis": Row(frozenset(), _check("redis"), hostile.RESP, seconds=20),
    "check send": Row(frozenset(), _check("send=PING expect=PONG"), hostile.RAW, seconds=20),
    "check tls": Row(frozenset(), _checked_tls, hostile.HTTP, has_tls=True, seconds=20),
    "networks": Row(frozenset({"networks"}), _networks),
    "geo": Row(frozenset({"geo"}), _geo),
}
