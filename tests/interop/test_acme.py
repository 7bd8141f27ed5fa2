"""Certificates that txmux gets by itself; Pebble is the authority, which refuses half of all nonces."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import sysconfig
import time
from base64 import b64decode, urlsafe_b64encode
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.admin.processes import get
from tests.interop.acme import ONE, OTHER, RENEW, SITE, Front, issuer_of, names_of, shown_to
from tests.interop.children import InteropTestCase, eventually, leave_unmeasured, output_of
from tests.interop.pebble import Pebble
from tests.interop.servers import start_redis
from tests.support.changes import change_constants
from tests.support.folders import make_folder
from tests.support.kit import PATIENCE, Service, client_context, free_port, make_authority, write
from txmux.features.acme.shared import SharedCertificates
from txmux.features.sharing.store import Store
from txmux.rules.reading.parser import load
from txmux.serving.embedded import EmbeddedService

pytestmark = pytest.mark.by_turns

_RENEW_ONE = (
    b"POST /api/certificates/www.example.com/renew HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
)
_SEVERAL = """\
[listen public]
endpoint = 0.0.0.0:{port}
    [::1]:{port}
[route site]
match = tls sni=www.example.com
terminate_tls = acme
backend = {redis}
[route other]
match = tls sni=example.com
terminate_tls = acme
acme = OTHER
acme_ca = CA
acme_eab = EAB
backend = {redis}
[route address]
match = tls
terminate_tls = acme 127.0.0.1, 127.0.0.2, ::1
backend = {redis}
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


class GotTests(InteropTestCase):
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

    def start(self, settings: str = "", rules: str = SITE, **how: Any) -> Service:
        """Start a service with these settings, for which the authority and its terms may be others."""
        own, terms = self.make_folder(), how.pop("terms", "yes")
        self.socket = own / "admin.sock"
        named = rules.format(port=self.pebble.challenged, redis=f"127.0.0.1:{self.redis}")
        asked = self.pebble.settings(self.acme, how.pop("acme", None))
        asked = asked.replace("terms = yes", f"terms = {terms}")
        settings = f"{asked}admin = unix:{self.socket}\n{settings}"
        return self.own(Service(own, named, settings, **how))

    def txmux(self, *words: str) -> str:
        admin = f"unix:{self.socket}"
        return output_of(sys.executable, "-m", "txmux", *words, "--admin", admin).decode()

    def certificates(self) -> dict[str, Any]:
        rows = json.loads(self.txmux("certificates", "--json"))
        return {name: row for row in rows for name in row["names"]}

    def wait_for_certificates(self, *names: str, host: str = "127.0.0.1") -> None:
        for name in names or (ONE, OTHER):
            eventually(
                lambda its=name: "Pebble" in issuer_of(self.pebble.challenged, its, host),  # type: ignore[misc]
                f"clients see a certificate of {name or host}",
            )

    def test_first(self) -> None:
        """An authority with terms is not asked without the operator's consent. Then each of two workers shows each name its own certificate; its file is for nobody else, and no key is in a log.

        Challenges for what was not asked for go by the routes, as lego's do.
        """
        other = "[route lego]\nmatch = tls alpn=acme-tls/1\nbackend = reset\n"
        rules = SITE.replace("[route site]", f"{other}[route site]")
        mux = self.start("workers = 2\n", rules, terms="no")
        mux.child.wait_for(f"{ONE} has no certificate of an authority yet")
        terms = "data:text/plain,Do%20what%20thou%20wilt"
        mux.child.wait_for(f"has terms of service: {terms}; read them")
        self.assertIn("acme_terms = yes", self.txmux("status"))
        issued = self.pebble.issued
        mux.reload(("acme_terms = no", "acme_terms = yes"))
        self.wait_for_certificates()
        self.assertEqual(self.pebble.issued, issued + 2)
        for name in (ONE, OTHER):
            names = names_of(shown_to(self.pebble.challenged, name))
            self.assertEqual(names.get_values_for_type(x509.DNSName), [name])
        challenged = [line for line in mux.lines() if line["route"] == "acme-tls/1"]
        self.assertLessEqual({ONE, OTHER}, {line["facts"]["sni"] for line in challenged})
        found = self.certificates()
        self.assertLess(found[ONE]["next_renewal"], found[ONE]["not_after"])
        self.assertEqual((found[ONE]["acme"], found[ONE]["route"]), (True, "site"))
        self.assertRegex(self.txmux("certificates"), rf"{ONE} +valid +CN=Pebble .* UTC +site +acme")
        self.assertNotIn("attention", self.txmux("status"))
        self.assertEqual(self.acme.stat().st_mode & 0o777, 0o700)
        files = [*self.acme.iterdir()]
        self.assertEqual({file.stat().st_mode & 0o777 for file in files}, {0o600})
        self.assertIn(self.acme / f"{ONE}.pem", files)
        said = mux.child.output + mux.log.read_text()
        for file in self.acme.glob("*.pem"):
            self.assertNotIn(file.read_text().splitlines()[1], said)
        for name in ("other.example.com", ONE):
            with self.assertRaises(OSError):
                shown_to(self.pebble.challenged, name, "acme-tls/1")

        def logged() -> list[str]:
            return [line["facts"]["sni"] for line in mux.lines() if line["route"] == "lego"]

        eventually(lambda: len(logged()) == 2, "they are logged")
        self.assertEqual(sorted(logged()), ["other.example.com", ONE])

    def test_renewed_under_load(self) -> None:
        """While a certificate is renewed, 200 clients come each second: none is shown a wrong one, and none is cut."""
        self.start("workers = 2\n", SITE.replace("[route", "detect_timeout = 60s\n[route"))
        self.wait_for_certificates()
        asyncio.run(self.renew_under_load())

    async def renew_under_load(self) -> None:
        context = client_context(None)
        seen: dict[str, set[bytes]] = {ONE: set(), OTHER: set()}
        port, pong = self.pebble.challenged, b"+PONG\r\n"

        async def ping(*connection: Any) -> None:
            reader, writer = connection
            writer.write(b"PING\r\n")
            self.assertEqual(await reader.readexactly(len(pong)), pong)

        async def come(name: str, **where: Any) -> Any:
            where = where or {"host": "127.0.0.1", "port": port}
            connection = await asyncio.open_connection(ssl=context, server_hostname=name, **where)
            seen[name].add(connection[1].get_extra_info("ssl_object").getpeercert(binary_form=True))
            await ping(*connection)
            return connection

        async def come_and_go(name: str) -> bytes:
            _, writer = await come(name)
            shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            await writer.wait_closed()
            return shown

        # Two that stay, and two that begin before the renewal and say no more until it is over.
        stay = [await come(name) for name in (ONE, OTHER)]
        held = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(2)]
        before = {name: {*shown} for name, shown in seen.items()}
        renewing = asyncio.create_task(asyncio.to_thread(self.txmux, *RENEW, ONE))
        loop, after = asyncio.get_running_loop(), 0
        clients: list[asyncio.Task[bytes]] = []
        begun = loop.time()
        while after < 200:  # which is a second
            clients.append(asyncio.create_task(come_and_go((ONE, OTHER)[len(clients) % 2])))
            after += renewing.done()
            await asyncio.sleep(begun + len(clients) / 200 - loop.time())
        shown = await asyncio.gather(*clients)
        taken = loop.time() - begun
        self.assertIn(f"{ONE}: renewed", await renewing)
        stay += [await come(ONE, sock=plain) for plain in held]
        for connection in stay:
            await ping(*connection)
            connection[1].close()
        new = self.written(ONE).public_bytes(Encoding.DER)
        self.assertEqual(seen, {OTHER: before[OTHER], ONE: before[ONE] | {new}})
        self.assertEqual({*shown[-199:]}, before[OTHER] | {new})  # since the command has answered
        print(f"{len(clients)} connections in {taken:.1f} s, none wrong and none cut")  # noqa: T201 - for people

    def written(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.acme / f"{name}.pem").read_bytes())

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
        file, more = inside / f"acme/{ONE}.pem", inside / "more"
        before = file.read_bytes()
        with self.assertRaisesRegex(OSError, "No space left"), more.open("wb", 0) as full:
            while True:
                full.write(bytes(4096))
        with self.assertRaisesRegex(AssertionError, "cannot be written to .* No space left"):
            self.txmux(*RENEW, ONE)
        self.assertIn("cannot be written to", self.txmux("status"))
        self.assertEqual(file.read_bytes(), before)
        self.assertEqual(issuer_of(self.pebble.challenged, ONE)[:9], "CN=Pebble")
        more.unlink()
        self.assertIn("renewed", self.txmux(*RENEW, ONE))
        self.assertNotEqual(file.read_bytes(), before)
        self.assertEqual(self.pebble.issued, issued + 1)
        self.assertNotIn("attention", self.txmux("status"))
        self.assertFalse([*file.parent.glob(".*")])
        mux.child.wait_for("cannot be written to")

    def test_damaged(self) -> None:
        """A file that is damaged while the service runs changes nothing, at a reload neither; at a start it gives way to a certificate of txmux's own, and the others serve."""
        mux = self.start()
        self.wait_for_certificates()
        file = self.acme / f"{ONE}.pem"
        good = file.read_bytes()
        file.write_bytes(make_authority().key_pem() + good)
        eventually(lambda: "does not belong" in self.txmux("status"), "it is in attention")
        self.assertIn("Pebble", issuer_of(self.pebble.challenged, ONE))
        change = (r"\[route site\]", "[route site]\nlog = errors")
        self.assertIn("rules reloaded", mux.reload(change))
        self.assertEqual(file.read_bytes(), good)
        self.assertIn("Pebble", issuer_of(self.pebble.challenged, ONE))
        mux.stop()
        file.write_bytes(good + good.replace(b"\n", b"\nAAAA", 5))
        mux = self.start(f"acme = https://127.0.0.1:{free_port()}/dir\n", acme="")
        mux.child.wait_for("one that txmux has signed itself takes its place")
        mux.child.wait_for(r"acme \S+/dir: cannot be reached: .*; certificates")
        self.assertEqual(issuer_of(self.pebble.challenged, ONE), f"CN={ONE}")
        self.assertIn("Pebble", issuer_of(self.pebble.challenged, OTHER))
        items = json.loads(self.txmux("status", "--json"))["attention"]
        (item,) = [one for one in items if ONE in one["text"]]
        told = f"{item['level']} {item['cause']}"
        self.assertRegex(told, "^critical .*(damaged|cannot be reached)")
        self.assertTrue(self.certificates()[ONE]["is_self_signed"])

    def test_renewed_by_the_next_process(self) -> None:
        """A renewal that an upgrade interrupts is done by the new process; the old one passes on what came of it. A name that a reload adds gets a certificate then, and the one from before keeps its own."""
        front = self.own(Front(self.pebble))
        front.busy = True
        self.addCleanup(front.stalls.set)
        one = SITE.replace("www.example.com,Example.com", ONE)
        mux = self.start(f"acme = {front.url}/dir\n", one, acme="")
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
        shown = shown_to(self.pebble.challenged, ONE)
        self.assertIn("Pebble", shown.issuer.rfc4514_string())
        issued = self.pebble.issued
        mux.reload((f"sni={ONE}", f"sni={ONE},{OTHER}"))
        self.wait_for_certificates(OTHER)
        self.assertEqual(shown_to(self.pebble.challenged, ONE), shown)
        self.assertEqual(self.pebble.issued, issued + 1)  # nothing for what is there
        self.assertEqual(shown_to(self.pebble.challenged, OTHER), self.written(OTHER))

    def test_closed_python(self) -> None:
        """With a user that cannot read Python's files, all is imported before; a reload that needs more says what to do."""
        if os.geteuid():
            self.skipTest("only root becomes another user, and mounts files")
        paths, home = sysconfig.get_paths(), self.make_folder()
        own = str(Path(__file__).parents[2])
        places = (paths["stdlib"], paths["purelib"], own, sys.base_prefix)
        before = ("unshare", "--mount", "sh", "-ec", _CLOSED, "sh", str(home), *places)
        change_constants(self, sys, executable=str(Path(sys.executable).resolve()))
        leave_unmeasured(self)
        for named, why in ((SITE, ""), (SITE.replace("terminate_tls = acme\n", ""), "needs")):
            self.acme = self.make_folder() / "acme"
            settings = f"{self.pebble.settings(self.acme)}user = nobody\n"
            rules = named.format(port=self.pebble.challenged, redis=f"127.0.0.1:{self.redis}")
            mux = Service(self.make_folder(), rules, settings, before=before, program="run")
            self.own(mux)
            if why:
                text = mux.file.read_text()
                mux.file.write_text(text.replace("backend =", "terminate_tls = acme\nbackend ="))
                os.kill(mux.pid, signal.SIGHUP)
                mux.child.wait_for("reload failed.*cannot import what these rules need: .*restart")
            else:
                self.wait_for_certificates()
            mux.stop()

    def test_addresses_and_two_authorities(self) -> None:
        """Routes ask authorities of their own, with one account each, of which one is bound to another; clients without a name see the certificate of the address that they came to."""
        served, folder = self.pebble.challenged, self.make_folder()
        issued = self.pebble.issued
        secret = urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()
        binding: dict[str, Any] = {"externalAccountMACKeys": {"kid-1": secret}}
        binding["externalAccountBindingRequired"] = True
        other = self.own(Pebble(folder, challenged=served, **binding))
        eab = write(folder / "eab", f"kid-1 {'A' * 43}\n", 0o600)
        named = (("OTHER", other.directory), ("CA", str(other.ca)), ("EAB", str(eab)))
        rules = _SEVERAL
        for word, value in named:
            rules = rules.replace(f"= {word}\n", f"= {value}\n")
        mux = self.start("workers = 2\n", rules)
        addresses = ("127.0.0.1", "127.0.0.2", "::1")
        for host in addresses:
            self.wait_for_certificates("", host=host)
            names = names_of(shown_to(served, "", host=host))
            self.assertEqual(names.get_values_for_type(x509.IPAddress), [ip_address(host)])
        self.wait_for_certificates(ONE)
        mux.child.wait_for(f"compare '{eab}' with the key ID")
        eab.write_text(f"kid-1 {secret}\n")
        self.assertIn("renewed", self.txmux(*RENEW, OTHER))
        self.assertIn("renewed", self.txmux(*RENEW, "::1"))
        self.assertEqual((self.pebble.issued - issued, other.issued), (5, 1))
        self.assertEqual(len([*self.acme.glob("account-*.key")]), 2)
        found = self.certificates()
        authorities = {name: found[name]["authority"] for name in (ONE, OTHER, *addresses)}
        expected = dict.fromkeys((ONE, OTHER, *addresses), self.pebble.directory)
        self.assertEqual(authorities, expected | {OTHER: other.directory})
        said = mux.child.output + mux.log.read_text() + self.txmux("status", "--json")
        self.assertNotIn(secret, said)
        mux.upgrade()
        self.assertIn("renewed", self.txmux(*RENEW, "127.0.0.2"))
        own = "".join(f"acme{key} = {re.escape(value)}\n" for key, (_, value) in zip(("", "_ca", "_eab"), named, strict=True))  # fmt: skip
        mux.reload((own, ""))
        eventually(lambda: self.pebble.issued == issued + 7, "the first authority is asked for it")
        self.assertEqual(other.issued, 1)

    def test_shared(self) -> None:
        """One asks, and the other reads what it got; each answers the challenges of the other, and Redis has no key as it is."""
        redis = self.own(start_redis(self.make_folder(), password="secret"))
        shared = f"shared_limits = redis://127.0.0.1:{redis.port} password={redis.password}\n"
        address = "match = tls\nterminate_tls = acme 127.0.0.1\nbackend = close\n"
        rules = f"{SITE}[route address]\n{address}"
        before = self.pebble.issued
        self.start(shared, rules)
        self.wait_for_certificates(ONE, OTHER, "")
        issued = self.pebble.issued
        self.assertEqual(issued, before + 3)
        served = self.pebble.challenged
        self.acme = self.make_folder() / "acme"
        other = self.start(shared, rules.replace("{port}", "0"))
        for name in (ONE, OTHER, ""):
            eventually(
                lambda name=name: shown_to(other.port, name) == shown_to(served, name),  # type: ignore[misc]
                "both show the same certificate",
            )
        self.assertEqual(self.pebble.issued, issued)
        # The authority looks at the first machine, while the second one asks.
        self.assertIn("renewed", self.txmux(*RENEW, ONE))
        self.assertEqual(self.pebble.issued, issued + 1)
        eventually(lambda: shown_to(other.port, ONE) == shown_to(served, ONE), "the first has it")
        keys = redis.ask("KEYS", "*").split()
        self.assertIn(f"txmux:acme:certificate:{ONE}", keys)
        self.assertNotIn("txmux:acme:lock", keys)
        found = redis.ask("GET", f"txmux:acme:certificate:{ONE}")
        self.assertNotIn(b"PRIVATE KEY", b64decode(found.strip().strip('"')))


class EmbeddedTests(TestCase, InteropTestCase):
    async def test_first(self) -> None:
        """It gets its certificate while it serves, and stops without a trace."""
        folder = make_folder(self)
        pebble = Pebble(folder)
        self.addCleanup(pebble.end)
        named = SITE.format(port=pebble.challenged, redis="127.0.0.1:1")
        text = f"[txmux]\n{pebble.settings(folder / 'acme')}{named}"
        service = EmbeddedService(load(write(folder / "rules.ini", text)))
        service.startService()
        self.addCleanup(service.stopService)
        for _ in range(600):
            issuer = await deferToThread(issuer_of, pebble.challenged, OTHER)
            if "Pebble" in issuer:
                break
            await deferLater(reactor, 0.1)
        self.assertIn("Pebble", issuer)

    async def test_challenges(self) -> None:
        """Listeners answer a challenge if it is sealed, new, and of the machine that has the lock."""
        server = self.own(start_redis(self.make_folder(), password="secret"))
        store = Store("redis", host="127.0.0.1", port=server.port, password=server.password)
        clocks = dict.fromkeys(("own", "other"), now := time.time())
        times = (partial(clocks.__getitem__, name) for name in clocks)
        own, other = (SharedCertificates(reactor, store, its) for its in times)
        for one in (own, other):
            self.addCleanup(one.stop)
            while not one.is_up:
                await deferLater(reactor, 0.01)
        digest = {ONE: "00" * 32}
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
        await other.put("https://a.example/dir", ONE, plain.encode(), 60)
        as_certificate = await redis.execute("GET", f"txmux:acme:certificate:{ONE}")
        for said in (plain, as_certificate, sealed[:-8], "", "[]"):
            await redis.execute("SET", "txmux:acme:challenges", said)
            self.assertEqual((await own.poll())[0], {})
        await redis.execute("SET", "txmux:acme:challenges", sealed)
        self.assertEqual((await other.poll())[0], {})
        await other.unlock()
        self.assertEqual((await own.poll())[0], {})
        self.assertTrue(own.source.state().up)
