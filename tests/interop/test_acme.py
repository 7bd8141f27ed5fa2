"""Certificates that txmux gets by itself; Pebble is the authority, which refuses half of all nonces."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
import sysconfig
import threading
import time
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.admin.processes import get
from tests.interop.children import (
    PATIENCE,
    Child,
    InteropTestCase,
    eventually,
    leave_unmeasured,
    output_of,
)
from tests.interop.pebble import Pebble
from tests.interop.servers import start_redis
from tests.processes.upgrading import Running, Upgrading
from tests.support.certificates import make_authority
from tests.support.folders import make_folder
from tests.support.ports import free_port
from txmux.rules.model import Route, Rules, Settings, TlsEnd
from txmux.rules.model.route import acme_file
from txmux.rules.model.settings import Store
from txmux.rules.reading.parser import load
from txmux.serving.acme.folder import make_first
from txmux.serving.acme.renewal import Certificates
from txmux.serving.acme.shared import SharedCertificates
from txmux.serving.embedded import EmbeddedService

_ONE, _OTHER = "www.example.com", "example.com"
_RENEW = ("certificates", "--renew")
_RENEW_ONE = (
    b"POST /api/certificates/www.example.com/renew HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
)
_REVOKE = """\
import sys
from pathlib import Path
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react
from txmux.rules.reading.parser import load
from txmux.serving.acme.authority import Authority
from txmux.serving.acme.folder import AcmeFolder
from txmux.telemetry.sources import Source

async def revoke(reactor):
    settings = load(Path(sys.argv[1])).settings
    folder, source = AcmeFolder(settings.acme_folder), Source("acme", "", "", reactor.seconds)
    account = Authority(reactor, settings, folder, source)
    await account._connect()
    await account._post(account._urls["revokeCert"], {"certificate": sys.argv[2]}, is_json=False)

react(lambda reactor: ensureDeferred(revoke(reactor)))
"""
_CLOSED = """\
home=$1 lib=$2 site=$3 code=$4 prefix=$5; shift 5
mkdir -p "$home$lib" "$home/site" "$home/code"
chmod 0700 "$home"
mount --bind "$lib" "$home$lib"
mount --bind "$site" "$home/site"
mount --bind "$code" "$home/code"
export PYTHONHOME="$home$prefix" PYTHONPATH="$home/code:$home/site"
exec "$@"
"""
_SITE = """\
[listen public]
endpoint = 127.0.0.1:{port}
[route site]
match = tls sni=www.example.com,Example.com
terminate_tls = acme
backend = {redis}
"""


def _shown(port: int, name: str, *protocols: str) -> x509.Certificate:
    """Return the certificate that a client is shown that asks for a name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(protocols)
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=name) as client,
    ):
        return x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")


def _issuer(port: int, name: str) -> str:
    return _shown(port, name).issuer.rfc4514_string()


class AcmeCase(InteropTestCase):
    pebble: ClassVar[Pebble]
    redis: ClassVar[int]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.pebble = cls.share(Pebble(cls.folder))
        cls.redis = cls.share(start_redis(cls.folder)).port

    def setUp(self) -> None:
        super().setUp()
        self.acme = self.make_folder() / "acme"

    def start(
        self,
        settings: str = "",
        rules: str = _SITE,
        acme: str | None = None,
        terms: str = "yes",
        before: Sequence[str] = (),
    ) -> Upgrading:
        own = self.make_folder()
        self.socket = own / "admin.sock"
        named = rules.format(port=self.pebble.challenged, redis=f"127.0.0.1:{self.redis}")
        asked = self.pebble.settings(self.acme, acme).replace("terms = yes", f"terms = {terms}")
        settings = f"{asked}admin = unix:{self.socket}\n{settings}"
        return self.own(Upgrading(own, named, settings, before=before))

    def txmux(self, *words: str) -> str:
        return output_of(
            sys.executable, "-m", "txmux", *words, "--admin", f"unix:{self.socket}"
        ).decode()

    def certificates(self) -> dict[str, Any]:
        rows = json.loads(self.txmux("certificates", "--json"))
        return {name: row for row in rows for name in row["names"]}

    def wait_for_certificates(self, *names: str) -> None:
        for name in names or (_ONE, _OTHER):
            eventually(
                lambda name=name: "Pebble" in _issuer(self.pebble.challenged, name),  # type: ignore[misc]
                f"clients see a certificate of {name}",
            )


class GotTests(AcmeCase):
    def test_first(self) -> None:
        """Two workers show each name its own certificate of the authority; its file is for nobody else, and no key is in a log."""
        mux = self.start("workers = 2\n")
        mux.child.wait_for(f"{_ONE} has no certificate of an authority yet")
        self.wait_for_certificates()
        for name in (_ONE, _OTHER):
            names = _shown(self.pebble.challenged, name).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
            self.assertEqual(names.value.get_values_for_type(x509.DNSName), [name])
        challenged = [line for line in mux.lines() if line["route"] == "acme-tls/1"]
        self.assertLessEqual({_ONE, _OTHER}, {line["facts"]["sni"] for line in challenged})
        found = self.certificates()
        self.assertLess(found[_ONE]["next_renewal"], found[_ONE]["not_after"])
        self.assertEqual((found[_ONE]["acme"], found[_ONE]["route"]), (True, "site"))
        self.assertRegex(self.txmux("certificates"), rf"{_ONE} +CN=Pebble .* UTC +site +acme")
        self.assertNotIn("attention", self.txmux("status"))
        self.assertEqual(self.acme.stat().st_mode & 0o777, 0o700)
        files = [*self.acme.iterdir()]
        self.assertEqual({file.stat().st_mode & 0o777 for file in files}, {0o600})
        self.assertIn(self.acme / f"{_ONE}.pem", files)
        said = mux.child.output + mux.log.read_text()
        for file in self.acme.glob("*.pem"):
            self.assertNotIn(file.read_text().splitlines()[1], said)

    def test_renewed_under_load(self) -> None:
        """While a certificate is renewed, 200 clients come each second: none is shown a wrong one, and none is cut."""
        self.start("workers = 2\n", _SITE.replace("[route", "detect_timeout = 60s\n[route"))
        self.wait_for_certificates()
        asyncio.run(self._renew_under_load())

    async def _renew_under_load(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        seen: dict[str, set[bytes]] = {_ONE: set(), _OTHER: set()}
        port, pong = self.pebble.challenged, b"+PONG\r\n"

        async def ping(*connection: Any) -> None:
            reader, writer = connection
            writer.write(b"PING\r\n")
            self.assertEqual(await reader.readexactly(len(pong)), pong)

        async def come(name: str, **where: Any) -> Any:
            where = where or {"host": "127.0.0.1", "port": port}
            connection = await asyncio.open_connection(ssl=context, server_hostname=name, **where)
            shown = connection[1].get_extra_info("ssl_object").getpeercert(binary_form=True)
            seen[name].add(shown)
            await ping(*connection)
            return connection

        async def come_and_go(name: str) -> None:
            _, writer = await come(name)
            writer.close()
            await writer.wait_closed()

        # Two that stay, and two that begin before the renewal and say no more until it is over.
        stay = [await come(name) for name in (_ONE, _OTHER)]
        held = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(2)]
        before = {name: {*shown} for name, shown in seen.items()}
        renewing = asyncio.create_task(asyncio.to_thread(self.txmux, *_RENEW, _ONE))
        loop, after = asyncio.get_running_loop(), 0
        clients: list[asyncio.Task[None]] = []
        begun = loop.time()
        while after < 200:  # which is a second
            clients.append(asyncio.create_task(come_and_go((_ONE, _OTHER)[len(clients) % 2])))
            after += renewing.done()
            await asyncio.sleep(begun + len(clients) / 200 - loop.time())
        await asyncio.gather(*clients)
        taken = loop.time() - begun
        self.assertIn(f"{_ONE}: renewed", await renewing)
        stay += [await come(_ONE, sock=plain) for plain in held]
        for connection in stay:
            await ping(*connection)
            connection[1].close()
        file = x509.load_pem_x509_certificate((self.acme / f"{_ONE}.pem").read_bytes())
        new = file.public_bytes(Encoding.DER)
        self.assertEqual(seen, {_OTHER: before[_OTHER], _ONE: before[_ONE] | {new}})
        print(f"{len(clients)} connections in {taken:.1f} s, none wrong and none cut")  # noqa: T201 - for people

    def test_revoked(self) -> None:
        """After a certificate was revoked, its authority says that it is to be renewed now, and clients see the next one."""
        front = self.own(_Front(self.pebble))
        front.revoked = threading.Event()
        mux = self.start(
            f"acme = {front.url}/dir\nworkers = 2\n", _SITE.replace(",Example.com", ""), ""
        )
        self.wait_for_certificates(_ONE)
        first = _shown(self.pebble.challenged, _ONE)
        self.assertEqual(self.pebble.status(first.serial_number), "Valid")
        der = urlsafe_b64encode(first.public_bytes(Encoding.DER)).rstrip(b"=").decode()
        output_of(sys.executable, "-c", _REVOKE, mux.file, der)
        self.assertEqual(self.pebble.status(first.serial_number), "Revoked")
        issued = self.pebble.issued
        front.revoked.set()
        eventually(lambda: self.pebble.issued > issued, "there is another one")
        eventually(
            lambda: _shown(self.pebble.challenged, _ONE) != first, "clients see the new certificate"
        )
        written = (self.acme / f"{_ONE}.pem").stat().st_mtime
        print(f"shown {time.time() - written:.2f} s after it was here")  # noqa: T201 - for people
        shown = _shown(self.pebble.challenged, _ONE)
        self.assertEqual(self.pebble.status(shown.serial_number), "Valid")
        self.assertEqual(self.pebble.issued, issued + 1)

    def test_other_challenges(self) -> None:
        """Challenges for what was not asked for go by the routes, as lego's do."""
        other = "[route lego]\nmatch = tls alpn=acme-tls/1\nbackend = reset\n"
        mux = self.start(rules=_SITE.replace("[route site]", f"{other}[route site]"))
        self.wait_for_certificates()
        for name in ("other.example.com", _ONE):
            with self.assertRaises(OSError):
                _shown(self.pebble.challenged, name, "acme-tls/1")

        def logged() -> list[str]:
            return [line["facts"]["sni"] for line in mux.lines() if line["route"] == "lego"]

        eventually(lambda: len(logged()) == 2, "they are logged")
        self.assertEqual(sorted(logged()), ["other.example.com", _ONE])

    def test_terms(self) -> None:
        """An authority with terms is not asked without the operator's consent; a reload with it asks at once."""
        mux = self.start(terms="no")
        mux.child.wait_for(
            "has terms of service: data:text/plain,Do%20what%20thou%20wilt; read them"
        )
        self.assertIn("acme_terms = yes", self.txmux("status"))
        issued = self.pebble.issued
        mux.reload(("acme_terms = no", "acme_terms = yes"))
        self.wait_for_certificates()
        self.assertEqual(self.pebble.issued, issued + 2)

    def test_full_disk(self) -> None:
        """A certificate that a full disk has no room for is kept, not asked for again, and written once that is possible."""
        if os.geteuid():
            self.skipTest("only root mounts a file system")
        disk = self.make_folder()
        self.acme = disk / "acme"
        mount = 'mount -t tmpfs -o size=64k,mode=755 tmpfs "$1"; shift; exec "$@"'
        mux = self.start(before=("unshare", "--mount", "sh", "-ec", mount, "sh", str(disk)))
        self.wait_for_certificates()
        issued = self.pebble.issued
        inside = Path(f"/proc/{mux.pid}/root{disk}")
        file, more = inside / f"acme/{_ONE}.pem", inside / "more"
        before = file.read_bytes()
        with self.assertRaisesRegex(OSError, "No space left"), more.open("wb", 0) as full:
            while True:
                full.write(bytes(4096))
        with self.assertRaisesRegex(AssertionError, "cannot be written to .* No space left"):
            self.txmux(*_RENEW, _ONE)
        self.assertIn("cannot be written to", self.txmux("status"))
        self.assertEqual(file.read_bytes(), before)
        self.assertEqual(_issuer(self.pebble.challenged, _ONE)[:9], "CN=Pebble")
        more.unlink()
        self.assertIn("renewed", self.txmux(*_RENEW, _ONE))
        self.assertNotEqual(file.read_bytes(), before)
        self.assertEqual(self.pebble.issued, issued + 1)
        self.assertNotIn("attention", self.txmux("status"))
        self.assertFalse([*file.parent.glob(".*")])
        mux.child.wait_for("cannot be written to")

    def test_away(self) -> None:
        """The service starts while the authority is away, and after it is there, asks when it is told to."""
        port, served = free_port(), self.pebble.challenged
        mux = self.start(f"acme = https://127.0.0.1:{port}/dir\n", acme="")
        mux.child.wait_for(
            f"acme https://127.0.0.1:{port}/dir: cannot be reached: .*; certificates"
        )
        self.assertIn("cannot be reached", self.txmux("status"))
        self.assertEqual(_issuer(served, _ONE), f"CN={_ONE}")
        self.own(Pebble(self.make_folder(), port=port, challenged=served, ca=self.pebble.authority))
        self.assertIn("renewed", self.txmux(*_RENEW, _ONE))
        self.assertIn("Pebble", _issuer(served, _ONE))

    def test_damaged(self) -> None:
        """A file that is damaged while the service runs changes nothing, at a reload neither; at a start it gives way to a certificate of txmux's own, and the others serve."""
        mux = self.start()
        self.wait_for_certificates()
        file = self.acme / f"{_ONE}.pem"
        good = file.read_bytes()
        file.write_bytes(make_authority().key_pem() + good)
        eventually(lambda: "does not belong" in self.txmux("status"), "it is in attention")
        self.assertIn("Pebble", _issuer(self.pebble.challenged, _ONE))
        self.assertIn(
            "rules reloaded", mux.reload((r"\[route site\]", "[route site]\nlog = errors"))
        )
        self.assertEqual(file.read_bytes(), good)
        self.assertIn("Pebble", _issuer(self.pebble.challenged, _ONE))
        mux.stop()
        file.write_bytes(good + good.replace(b"\n", b"\nAAAA", 5))
        mux = self.start(f"acme = https://127.0.0.1:{free_port()}/dir\n", acme="")
        mux.child.wait_for("one that txmux has signed itself takes its place")
        self.assertEqual(_issuer(self.pebble.challenged, _ONE), f"CN={_ONE}")
        self.assertIn("Pebble", _issuer(self.pebble.challenged, _OTHER))
        items = json.loads(self.txmux("status", "--json"))["attention"]
        (item,) = [one for one in items if _ONE in one["text"]]
        self.assertRegex(
            f"{item['level']} {item['cause']}", "^critical .*(damaged|cannot be reached)"
        )
        self.assertTrue(self.certificates()[_ONE]["is_self_signed"])

    def test_reload(self) -> None:
        """A name that a reload adds gets a certificate; one that was there before keeps its own."""
        rules = _SITE.replace("www.example.com,Example.com", _ONE)
        mux = self.start(rules=rules)
        self.wait_for_certificates(_ONE)
        serial = _shown(self.pebble.challenged, _ONE).serial_number
        mux.reload((f"sni={_ONE}", f"sni={_ONE},{_OTHER}"))
        self.wait_for_certificates(_OTHER)
        self.assertEqual(_shown(self.pebble.challenged, _ONE).serial_number, serial)

    def test_upgrade(self) -> None:
        """After an upgrade the new process renews, and asks for nothing that is there."""
        mux = self.start()
        self.wait_for_certificates()
        issued = self.pebble.issued
        mux.upgrade()
        self.assertIn("renewed", self.txmux(*_RENEW, _OTHER))
        self.assertEqual(self.pebble.issued, issued + 1)
        self.assertEqual(
            _shown(self.pebble.challenged, _OTHER),
            x509.load_pem_x509_certificate((self.acme / f"{_OTHER}.pem").read_bytes()),
        )

    def test_renewed_by_the_next_process(self) -> None:
        """A renewal that an upgrade interrupts is done by the new process; the old one passes on what came of it."""
        front = self.own(_Front(self.pebble))
        front.busy, front.stalls = True, threading.Event()
        self.addCleanup(front.stalls.set)
        mux = self.start(f"acme = {front.url}/dir\n", acme="")
        eventually(lambda: "/busy" in front.asked, "an order is under way")
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(PATIENCE)
            asking.connect(str(self.socket))
            asking.sendall(_RENEW_ONE)
            get(self.socket, "/api/status")  # when it has answered, it has read that
            front.busy = False
            mux.upgrade()
            answer = b"".join(iter(lambda: asking.recv(2**16), b""))
        self.assertRegex(answer, rb"(?s)^HTTP/1.1 200 .*www.example.com: renewed, valid until")
        self.assertIn("Pebble", _issuer(self.pebble.challenged, _ONE))

    def test_closed_python(self) -> None:
        """With a user that cannot read Python's files, all is imported before; a reload that needs more says what to do."""
        if os.geteuid():
            self.skipTest("only root becomes another user, and mounts files")
        paths, home = sysconfig.get_paths(), self.make_folder()
        places = (
            paths["stdlib"],
            paths["purelib"],
            str(Path(__file__).parents[2]),
            sys.base_prefix,
        )
        before = ("unshare", "--mount", "sh", "-ec", _CLOSED, "sh", str(home), *places)
        self.patch(sys, "executable", str(Path(sys.executable).resolve()))
        leave_unmeasured(self)
        for named, why in ((_SITE, ""), (_SITE.replace("terminate_tls = acme\n", ""), "needs")):
            self.acme = self.make_folder() / "acme"
            settings = f"{self.pebble.settings(self.acme)}user = nobody\n"
            rules = named.format(port=self.pebble.challenged, redis=f"127.0.0.1:{self.redis}")
            mux = self.own(Running(self.make_folder(), rules, settings, before=before))
            if why:
                text = mux.file.read_text()
                mux.file.write_text(text.replace("backend =", "terminate_tls = acme\nbackend ="))
                os.kill(mux.pid, signal.SIGHUP)
                mux.child.wait_for("reload failed.*cannot import what these rules need: .*restart")
            else:
                self.wait_for_certificates()
            mux.stop()


class EmbeddedTests(TestCase):
    async def test_first(self) -> None:
        """It gets its certificate while it serves, and stops without a trace."""
        folder = make_folder(self)
        pebble = Pebble(folder)
        self.addCleanup(pebble.end)
        rules = folder / "rules.ini"
        named = _SITE.format(port=pebble.challenged, redis="127.0.0.1:1")
        rules.write_text(f"[txmux]\n{pebble.settings(folder / 'acme')}{named}")
        service = EmbeddedService(load(rules))
        service.startService()
        self.addCleanup(service.stopService)
        for _ in range(600):
            issuer = await deferToThread(_issuer, pebble.challenged, _OTHER)
            if "Pebble" in issuer:
                break
            await deferLater(reactor, 0.1)
        self.assertIn("Pebble", issuer)


def _redis_with_password(test: InteropTestCase) -> tuple[int, Path]:
    """Start a Redis; return its port, and the file with its password."""
    password, port = test.make_folder() / "password", free_port()
    password.write_text("secret\n")
    password.chmod(0o600)
    options = ("--port", str(port), "--requirepass", "secret", "--save", "")
    test.own(Child("redis-server", *options)).wait_for("[Rr]eady to accept connections")
    return port, password


class SharedTests(AcmeCase):
    def test_shared(self) -> None:
        """One asks, and the other reads what it got; each answers the challenges of the other, and Redis has no key as it is."""
        port, password = _redis_with_password(self)
        shared = f"shared_limits = redis://127.0.0.1:{port} password={password}\n"
        self.start(shared)
        self.wait_for_certificates()
        issued = self.pebble.issued
        self.assertEqual(issued, 2)
        served = self.pebble.challenged
        self.acme = self.make_folder() / "acme"
        other = self.start(shared, _SITE.replace("{port}", "0"))
        for name in (_ONE, _OTHER):
            eventually(
                lambda name=name: _shown(other.port, name) == _shown(served, name),  # type: ignore[misc]
                "both show the same certificate",
            )
        self.assertEqual(self.pebble.issued, issued)
        # The authority looks at the first machine, while the second one asks.
        self.assertIn("renewed", self.txmux(*_RENEW, _ONE))
        self.assertEqual(self.pebble.issued, issued + 1)
        eventually(
            lambda: _shown(other.port, _ONE) == _shown(served, _ONE), "the first one has got it"
        )
        command = ("redis-cli", "-p", str(port), "-a", "secret", "--no-auth-warning")
        keys = output_of(*command, "KEYS", "*").decode().split()
        self.assertIn(f"txmux:acme:certificate:{_ONE}", keys)
        self.assertNotIn("txmux:acme:lock", keys)
        found = output_of(*command, "GET", f"txmux:acme:certificate:{_ONE}")
        self.assertNotIn(b"PRIVATE KEY", b64decode(found.strip().strip(b'"')))


class SealedTests(TestCase, InteropTestCase):
    """What somebody can do who may write to the Redis, and does not know its password."""

    async def test_challenges(self) -> None:
        """Listeners answer a challenge if it is sealed, new, and of the machine that has the lock."""
        port, password = _redis_with_password(self)
        store, now = Store("redis", host="127.0.0.1", port=port), time.time()
        clocks = {"own": now, "other": now}
        own, other = (
            SharedCertificates(reactor, store, password, partial(clocks.__getitem__, name))
            for name in clocks
        )
        for one in (own, other):
            self.addCleanup(one.stop)
            while not one.is_up:
                await deferLater(reactor, 0.01)
        digest = {_ONE: "00" * 32}
        self.assertTrue(await other.lock())
        self.assertFalse(await own.lock())
        await other.show(digest)
        self.assertEqual((await own.poll())[0], digest)
        for away in (200, -100):
            clocks["own"] = now + away
            self.assertEqual((await own.poll())[0], digest)
        with capturedLogs() as events:
            for away in (400, -200):
                clocks["own"] = now + away
                self.assertEqual((await own.poll())[0], {})
        (line,) = (formatEvent(event) for event in events)
        self.assertIn("its time is 400 s before this machine's: set the clocks", line)
        clocks["own"] = now
        redis: Any = own._client.redis
        sealed = await redis.execute("GET", "txmux:acme:challenges")
        plain = json.dumps([other._machine, digest])
        await other.put("https://a.example/dir", _ONE, plain.encode(), 60)
        as_certificate = await redis.execute("GET", f"txmux:acme:certificate:{_ONE}")
        for said in (plain, as_certificate, sealed[:-8], "", "[]"):
            await redis.execute("SET", "txmux:acme:challenges", said)
            self.assertEqual((await own.poll())[0], {})
        await redis.execute("SET", "txmux:acme:challenges", sealed)
        self.assertEqual((await other.poll())[0], {})
        await other.unlock()
        self.assertEqual((await own.poll())[0], {})
        self.assertTrue(own.source.state().up)

    async def test_lock(self) -> None:
        """A lock that stays, which somebody may have written, is reported after half an hour."""
        port, password = _redis_with_password(self)
        end = TlsEnd((self.folder / f"{_ONE}.pem",), acme=(_ONE,))
        settings = Settings(
            acme="https://a.example/dir",
            acme_folder=self.folder,
            shared_limits=Store("redis", host="127.0.0.1", port=port, password=password),
        )
        now = [time.time()]
        made = Certificates(reactor, lambda _: succeed(None), lambda: None, now=lambda: now[0])
        route = Route("site", (), None, terminate_tls=end)
        made.commit(Rules(Path("rules.ini"), settings, (), (route,)))
        self.addCleanup(made.stop)
        shared: Any = made._shared
        while not shared.is_up:
            await deferLater(reactor, 0.01)
        await shared._ask("SET", "txmux:acme:lock", "x")
        for count in (1, 1, 2):
            made.tick()
            await DeferredList([*made._busy.values()])
            self.assertEqual(len([*made.attention()]), count)
            now[0] += 1000
        self.assertIn("delete the key 'txmux:acme:lock'", next(made.attention()).do)


class _Front(ThreadingHTTPServer):
    """The directory of an authority with more in it: when to renew, and a refusal of all orders while it is `busy`, or no answer until `stalls` is set.

    With `offers`, it has orders of its own, with these challenges for another name. With `revoked`, it is asked when to renew until that is set; then one that Pebble has revoked is to be renewed at once.
    """

    def __init__(self, pebble: Pebble) -> None:
        super().__init__(("127.0.0.1", 0), _FrontHandler)
        own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        own.load_cert_chain(pebble.own, pebble.key)
        self.socket = own.wrap_socket(self.socket, server_side=True)
        self.pebble = pebble
        self.url = f"https://127.0.0.1:{self.server_port}"
        self.directory = pebble.get(pebble.directory) | {"renewalInfo": f"{self.url}/ari"}
        self.revoked: threading.Event | None = None
        self.window = (0.0, 0.0)
        self.asked: list[str] = []
        self.busy = self.is_down = False
        self.stalls: threading.Event | None = None
        self.offers: list[dict[str, str]] | None = None
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self._thread.join(PATIENCE)
        self.server_close()


class _FrontHandler(BaseHTTPRequestHandler):
    server: _Front

    def do_GET(self) -> None:
        front = self.server
        front.asked.append(self.path)
        orders = {"newOrder": f"{front.url}/busy"} if front.busy else {}
        if front.offers is not None:
            orders = {
                name: f"{front.url}/{name}" for name in ("newNonce", "newAccount", "newOrder")
            }
        if front.revoked is not None and self.path != "/dir":
            front.revoked.wait(PATIENCE)
            serial = int.from_bytes(urlsafe_b64decode(f"{self.path.rpartition('.')[2]}=="), "big")
            is_good = front.pebble.status(serial) == "Valid"
            at = time.time() + 10**6 * is_good
            front.window = (at - 60, at)  # one without a length would be no answer
        start, end = (
            f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%dT%H:%M:%SZ}" for at in front.window
        )
        answer: Any = {"suggestedWindow": {"start": start, "end": end}}
        status = 503 if front.is_down else 200
        self._answer(status, front.directory | orders if self.path == "/dir" else answer, "21600")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        url, offers = self.server.url, self.server.offers
        other = {"type": "dns", "value": "other.example"}
        if offers is not None:  # an account, an order and its authorization in one
            order = {"identifiers": [other], "authorizations": [f"{url}/x"], "finalize": f"{url}/x"}
            check = {"identifier": other, "challenges": offers}
            self._answer(201, {"status": "pending", **order, **check}, "0")
            return
        problem = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many orders"}
        self.server.asked.append(self.path)
        if self.server.stalls is not None:
            self.server.stalls.wait(PATIENCE)
            return
        self._answer(429, problem, "7200")

    def _answer(self, status: int, answer: Any, again: str) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Retry-After", again)
        self.send_header("Replay-Nonce", "QUFB")
        self.send_header("Location", f"{self.server.url}/x")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class ScheduleTests(TestCase, InteropTestCase):
    """When an authority is asked, by a clock of the test's own; it takes every name for ours."""

    pebble: ClassVar[Pebble]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.pebble = cls.share(Pebble(cls.folder, valid=True))

    def setUp(self) -> None:
        super().setUp()
        self.now = time.time()
        self.path = self.make_folder() / "acme"

    def certificates(self, directory: str = "", *names: str) -> Certificates:
        settings = Settings(
            acme=directory or self.pebble.directory,
            acme_terms=True,
            acme_ca=self.pebble.ca,
            acme_folder=self.path,
        )
        names = names or (_ONE,)
        end = TlsEnd(tuple(acme_file(self.path, name) for name in names), acme=names)
        rules = Rules(
            Path("rules.ini"), settings, (), (Route("site", (), None, terminate_tls=end),)
        )
        make_first(rules, None, self.now)
        self.announced: list[Mapping[str, str]] = []

        def announce(challenges: Mapping[str, str]) -> Deferred[None]:
            self.announced.append(challenges)
            return succeed(None)

        made = Certificates(reactor, announce, lambda: None, now=lambda: self.now)
        made.commit(rules)
        return made

    async def tick(self, certificates: Certificates) -> None:
        """Do what is due, until that has been done."""
        certificates.tick()
        await DeferredList([*certificates._busy.values()])

    async def run_for(self, certificates: Certificates, seconds: float) -> list[float]:
        """Let time pass, minute by minute, and return when the authority was asked in vain."""
        failed: list[float] = []
        until, before = self.now + seconds, 0
        while self.now < until:
            await self.tick(certificates)
            failures = sum(one.failures for one in certificates._renewals.values())
            count = failures + certificates._unreached
            if count > before:
                failed.append(self.now)
            before, self.now = count, self.now + 60
        return failed

    async def why(self, certificates: Certificates) -> str:
        """Ask for a certificate in vain, and return why."""
        certificates.renew(_ONE).addErrback(lambda _: None)
        await self.tick(certificates)
        return next(certificates.attention()).cause

    def serial(self) -> int:
        return x509.load_pem_x509_certificate(acme_file(self.path, _ONE).read_bytes()).serial_number

    async def test_third(self) -> None:
        """It is renewed when a third of its time is left, and not before; a restart asks for nothing."""
        certificates = self.certificates()
        await self.tick(certificates)
        self.assertEqual(set(self.announced[0]), {_ONE})
        self.assertEqual(self.announced[-1], {})
        first = self.serial()
        (row,) = certificates.rows()
        shown = x509.load_pem_x509_certificate(acme_file(self.path, _ONE).read_bytes())
        lifetime = (shown.not_valid_after_utc - shown.not_valid_before_utc).total_seconds()
        self.assertAlmostEqual(row["not_after"] - row["next_renewal"], lifetime / 3, places=1)
        certificates = self.certificates()
        self.now = row["next_renewal"] - 60
        await self.tick(certificates)
        self.assertEqual(self.serial(), first)
        self.now += 61
        await self.tick(certificates)
        self.assertNotEqual(self.serial(), first)
        self.assertEqual([*certificates.attention()], [])

    async def test_day_away(self) -> None:
        """While the authority is away for a day, it is asked more and more seldom, and once it is back, gives its certificates."""
        port = free_port()
        certificates = self.certificates(f"https://127.0.0.1:{port}/dir", _ONE, _OTHER)
        asked = await self.run_for(certificates, 86400)
        self.assertLess(len(asked), 40)
        self.assertLessEqual(max(b - a for a, b in pairwise(asked)), 3660)
        self.assertIn(
            "cannot be reached", " ".join(item.cause for item in certificates.attention())
        )
        self.assertEqual(certificates.seconds_left(), {_ONE: 0.0, _OTHER: 0.0})
        self.own(Pebble(self.make_folder(), port=port, valid=True, ca=self.pebble.authority))
        await self.run_for(certificates, 7200)
        self.assertEqual([*certificates.attention()], [])
        self.assertGreater(min(certificates.seconds_left().values()), 86400)

    async def test_suggested(self) -> None:
        """It is renewed when the authority says so, as for one that is revoked; else at the usual time."""
        front = self.own(_Front(self.pebble))
        certificates = self.certificates(f"{front.url}/dir")
        front.window = (self.now + 86400 * 700, self.now + 86400 * 701)
        await self.run_for(certificates, 600)
        first = self.serial()
        (row,) = certificates.rows()
        self.assertTrue(front.window[0] <= row["next_renewal"] <= front.window[1])
        front.window = (self.now - 7200, self.now - 3600)
        asked = len(front.asked)
        await self.run_for(certificates, 6 * 3600 - 1200)
        self.assertEqual(self.serial(), first)
        self.assertEqual(len(front.asked), asked)
        await self.run_for(certificates, 1800)
        self.assertNotEqual(self.serial(), first)

    async def test_side_by_side(self) -> None:
        """Once the authority has answered, four names are asked for at a time, and listeners answer the challenges of all."""
        names = [f"{name}.example.com" for name in "abcdef"]
        certificates = self.certificates(self.pebble.directory, *names)
        for count in (1, 4, 1):
            certificates.tick()
            self.assertEqual(len(certificates._busy), count)
            await self.tick(certificates)
        self.assertEqual([*certificates.attention()], [])
        self.assertEqual(max(map(len, self.announced)), 4)
        self.assertEqual(self.announced[-1], {})

    async def test_limits(self) -> None:
        """An authority that wants to be left alone about a name is; the reason and how long it lasts outlive a restart."""
        front = self.own(_Front(self.pebble))
        front.busy = True
        certificates = self.certificates(f"{front.url}/dir", _ONE, _OTHER)
        asked = await self.run_for(certificates, 7200)
        self.assertEqual(len(asked), 2)
        self.assertIn("rateLimited: too many orders", next(certificates.attention()).cause)
        await self.run_for(certificates, 3600)
        self.assertEqual(front.asked.count("/busy"), 4)
        await self.run_for(self.certificates(f"{front.url}/dir"), 600)
        self.assertEqual(front.asked.count("/busy"), 4)

    async def test_refused(self) -> None:
        """Why there is no certificate is said in words, and no challenge is answered for a name that was not asked for."""
        front = self.own(_Front(self.pebble))
        for offers, why in (
            ([], "does not offer the challenge tls-alpn-01, but none"),
            ([{"type": "dns-01", "url": f"{front.url}/x", "token": "QUFB" * 8}], ", but dns-01"),
            (
                [{"type": "tls-alpn-01", "url": f"{front.url}/x", "token": "QUFB" * 8}],
                "does not check www.example.com, but other.example",
            ),
        ):
            front.offers = offers
            certificates = self.certificates(f"{front.url}/dir")
            self.assertIn(why, await self.why(certificates))
            self.assertEqual(self.announced, [])
        front.is_down = True
        certificates = self.certificates(f"{front.url}/dir")
        self.assertIn("it answered 503 Service Unavailable", await self.why(certificates))
