"""Tests of the keys of ``[backend NAME]``: what they mean, and what is said of mistakes."""

import ipaddress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.rules.reading.cases import BackendTestCase, ReadingTestCase
from txmux.rules.lint import warnings
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Backend, Check, Ejection, Refusal, Resolve, Server, ServerTLS
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.endpoints import name_server
from txmux.rules.reading.parser import parse


class MeaningTests(BackendTestCase):
    def test_defaults(self) -> None:
        backend = self.backend()
        self.assertEqual(backend, Backend("b", (Server("10.0.0.1:80", "tcp", "10.0.0.1", 80),)))
        self.assertEqual((backend.balance, backend.source), ("round-robin", ()))
        self.assertEqual((backend.check, backend.eject), (None, Ejection(3, 10.0, 10.0)))
        self.assertEqual((backend.resolve, backend.tls), (Resolve(), None))
        self.assertEqual((backend.max_connections, backend.queue), (0, 0))
        self.assertEqual((backend.upload_rate, backend.download_rate), (None, None))
        self.assertEqual(backend.fallback, Refusal.CLOSE)

    def test_all_keys(self) -> None:
        found = self.backend(
            "balance = source-hash\nsource = 192.0.2.1, 192.0.2.2\n  2001:DB8::1\n"
            "check = tcp\neject = off\nresolve = 1m\n"
            "tls = yes\ntls_name = www.example.com\ntls_ca = ca.pem\n"
            "tls_client_certificate = client.pem\n  /etc/key.pem\nalpn = h2, http/1.1\n"
            "max_connections = 7\nend_on_down = backup\nqueue = 3\n"
            "upload_rate = 10MiB/s\ndownload_rate = 500/s\nfallback = reset"
        )
        self.assertEqual(
            found,
            Backend(
                "b",
                found.servers,
                balance="source-hash",
                source=("192.0.2.1", "192.0.2.2", "2001:db8::1"),
                check=Check("tcp"),
                eject=None,
                resolve=Resolve(60.0),
                tls=ServerTLS(
                    "www.example.com",
                    Path("etc/ca.pem"),
                    (Path("etc/client.pem"), Path("/etc/key.pem")),
                    ("h2", "http/1.1"),
                ),
                max_connections=7,
                end_on_down="backup",
                queue=3,
                upload_rate=10 * 1024**2,
                download_rate=500,
                fallback=Refusal.RESET,
            ),
        )

    def test_source_client_for_both_families(self) -> None:
        found = self.backend("source = client", servers="10.0.0.1:80\n  [::1]:80\n  web:80")
        self.assertEqual(found.source, ("client",))

    def test_resolvers_with_those_of_txmux_as_default(self) -> None:
        rules = self.read(
            "resolvers = 10.0.0.53, ::1, [fd00::53],10.0.0.53:53\n  [fd00::53]:8600\n"
            "[backend other]\nserver = other.example.com:1\nfallback = short.example.com:1\n"
            "[txmux]\nresolvers = 127.0.0.1:8600"
        )
        self.assertEqual(
            rules.backends["b"].resolvers,
            (("10.0.0.53", 53), ("::1", 53), ("fd00::53", 53), ("fd00::53", 8600)),
        )
        other = rules.backends["other"]
        self.assertEqual(other.resolvers, (("127.0.0.1", 8600),))
        self.assertEqual(getattr(other.fallback, "resolvers", None), other.resolvers)

    @given(st.text(max_size=30))
    def test_any_resolver_is_an_address_or_an_error(self, text: str) -> None:
        try:
            host, port = name_server(text)
        except InvalidValueError as error:
            self.assertTrue(error.messages)
        else:
            ipaddress.ip_address(host)
            self.assertIn(port, range(1, 65536))

    def test_eject_in_any_order_with_defaults(self) -> None:
        for text, expected in {
            "failures=1 within=2s for=3s": Ejection(1, 2.0, 3.0),
            "for=1m failures=5": Ejection(5, 10.0, 60.0),
            "within=1s": Ejection(3, 1.0, 10.0),
            "unanswered=2 after=20s": Ejection(unanswered=2, after=20.0),
            "unanswered=0": Ejection(unanswered=0),
        }.items():
            self.assertEqual(self.backend(f"eject = {text}").eject, expected)

    def test_hold(self) -> None:
        found = self.backend("")
        self.assertEqual((found.hold, found.hold_limit, found.more), (0.0, 1000, {}))
        found = self.backend("hold = 1m\nhold_limit = 7")
        self.assertEqual((found.hold, found.hold_limit), (60.0, 7))

    def test_tls_no(self) -> None:
        self.assertIsNone(self.backend("tls = no").tls)

    def test_tls_name_for_servers_without_a_name(self) -> None:
        self.backend("tls = yes\ntls_name = x", servers="unix:/run/x.sock\n  tcp:h:1:timeout=3")


class MistakeTests(BackendTestCase):
    def test_values(self) -> None:
        for text, complaints in {
            "balance = leastconn": (
                "6 balance: must be round-robin, least-connections, random, source-hash, sni-hash, host-hash or first, "
                "not 'leastconn'"
            ),
            "source = eth0, clinet": (
                "6 source: 'eth0' is not an IP address; write 'client' for the client's own, "
                "or one of this machine's\n"
                "6 source: 'clinet' is not an IP address; write 'client' for the client's own, "
                "or one of this machine's; did you mean 'client'?"
            ),
            "source = 0.0.0.0\n  ::ffff:192.0.2.1\n  fe80::1%eth0": (
                "6 source: '0.0.0.0' is not an address to connect from; write one of this machine's, "
                "such as 192.0.2.1\n"
                "7 source: '::ffff:192.0.2.1' is IPv4 inside IPv6; write '192.0.2.1'\n"
                "8 source: 'fe80::1%eth0' is not an address to connect from; write one of this machine's, "
                "such as 192.0.2.1"
            ),
            "check = tcp tls=yes sni=a.example\ntls = yes": (
                "6 check: 'sni=a.example' is for servers that are not spoken to by TLS; write 'tls_name = a.example' as a key instead"
            ),
            "eject = failures=0 within=5 for": (
                "6 eject: failures: must be a whole number from 1 to 1000, not '0'\n"
                "6 eject: within: '5' is not a duration; write a duration as 250ms, 5s, 1.5s, 10m, 1h or 2d\n"
                "6 eject: 'for' is not an option; did you mean 'for=VALUE'? (eject takes failures=, within=, for=, unanswered=, after=)"
            ),
            "eject = after=9s": (
                "6 eject: after= is how long clients get no byte; add unanswered=, as in unanswered=5"
            ),
            "eject = off for=1s": (
                "6 eject: off goes with nothing else; keep it alone, or remove it"
            ),
            "resolve = 30s keep=0s": (
                "6 resolve: keep: must be more than 0; write a duration as 250ms, 5s, 1.5s, 10m, 1h or 2d; "
                "the longest is 3650d; for no limit, write none"
            ),
            "resolve = 999ms": (
                "6 resolve: must be at least 1s; name servers should not be queried more often"
            ),
            "resolvers = ns.example.com, 10.0.0.1:, [10.0.0.1, 10.0.0.1:0": (
                "6 resolvers: 'ns.example.com' is not the IP address of a name server; write for example 127.0.0.1:8600 or [::1]:53\n"
                "6 resolvers: a port must be a whole number from 1 to 65535, not ''\n"
                "6 resolvers: '[10.0.0.1' is not the IP address of a name server; write for example 127.0.0.1:8600 or [::1]:53\n"
                "6 resolvers: a port must be a whole number from 1 to 65535, not '0'"
            ),
            "tls = yes\ntls_name = a_.-\nalpn = \x7f, " + "x" * 256: (
                "7 tls_name: 'a_.-' is not a host name; write one such as www.example.com, or an IP address\n"
                "8 alpn: '\\x7f' is not a protocol of ALPN; write for example h2 or http/1.1\n"
                f"8 alpn: '{'x' * 256}' is not a protocol of ALPN; write for example h2 or http/1.1"
            ),
        }.items():
            self.refuses(text, *complaints.split("\n"))

    def test_useless_without_another_key(self) -> None:
        for text, complaints in {
            "tls_name = a\ntls = no\ntls_ca = b": (
                "6 tls_name: has no effect without 'tls = yes'; add that, or remove this\n"
                "8 tls_ca: has no effect without 'tls = yes'; add that, or remove this"
            ),
            "tls_client_certificate = a\nalpn = h2": (
                "6 tls_client_certificate: has no effect without 'tls = yes'; add that, or remove this\n"
                "7 alpn: has no effect without 'tls = yes'; add that, or remove this"
            ),
            # what the other one says may be right after all
            "tls = ja\ntls_name = a": "6 tls: must be yes or no, not 'ja'",
        }.items():
            self.refuses(text, *complaints.split("\n"))

    def test_no_other_port_to_check(self) -> None:
        self.refuses(
            "check = tcp port=81",
            "8 check: 'unix:/x' has no other port; remove 'port=', or write it as HOST:PORT",
            "8 check: 'tcp:h:1:timeout=4' has no other port; remove 'port=', or write it as HOST:PORT",
            servers="h:1\n  unix:/x\n  tcp:h:1:timeout=4",
        )

    def test_sources_that_servers_cannot_be_reached_from(self) -> None:
        servers = "10.0.0.1:1\n  [2001:db8::1]:1\n  web:1\n  unix:/x\n  tcp:h:1:timeout=4"
        alone = "or put that server into a [backend] of its own"
        self.refuses(
            "source = 192.0.2.1",
            f"10 source: '[2001:db8::1]:1' is IPv6, but no address here is; add one, {alone}",
            "10 source: 'unix:/x' is a UNIX socket, which needs no local address; "
            f"remove this, {alone}",
            "10 source: 'tcp:h:1:timeout=4' is opened by Twisted, which does not support this; "
            f"write it as HOST:PORT, {alone}",
            servers=servers,
        )
        self.assertEqual(
            self.complaints("source = ::1, client, ::1", servers="[2001:db8::1]:1\n  oops")[1:],
            [
                "7 source: '::1' is given twice; keep one",
                "7 source: client cannot be combined with addresses; keep one or the other",
            ],
        )

    def test_servers_that_speak_no_tls(self) -> None:
        self.refuses(
            "tls = yes",
            "6 server: 'TLS:h:1' speaks TLS by itself; write it as HOST:PORT, or remove 'tls = yes'",
            "7 server: 'unix:/x' has no name to verify the certificate for; add tls_name = NAME",
            *self.complaints(servers="h:1\n  h:1\n  h:1\n  oops:x:y"),
            servers="h:1\n  TLS:h:1\n  unix:/x\n  oops:x:y",
        )

    def test_warnings(self) -> None:
        for text, servers, expected in (
            ("balance = first", "h:1 weight=2\n  h:2", ["5 server"]),
            ("balance = random", "h:1 weight=2\n  h:2 down", []),
            ("", "h:1 down\n  h:2 down backup", ["5 server"]),
            ("queue = 1", "h:1", ["6 queue"]),
            ("queue = 1", "h:1 max_connections=1", []),
            ("queue = 1\nmax_connections = 1", "h:1", []),
            ("end_on_down = backup", "h:1", ["6 end_on_down"]),
            ("end_on_down = yes\ncheck = tcp", "h:1", []),
            ("hold = 1s", "h:1 down", []),
        ):
            found = lint(self.read(text, servers=servers))
            self.assertEqual([f"{problem.line} {problem.key}" for problem in found], expected)

    def test_notes_on_servers_that_nothing_checks(self) -> None:
        for text, servers, advice in (
            ("", "h:1\n  h:2", "check = tcp"),
            ("", "udp:h:1\n  udp:h:2", "eject = unanswered=5"),
            ("eject = unanswered=1", "udp:h:1\n  udp:h:2", ""),
            ("check = tcp", "h:1\n  h:2", ""),
            ("", "h:1\n  h:2 down", ""),
            ("", "h:1", ""),
        ):
            udp = "udp:" * servers.startswith("udp")
            rules = parse(
                f"[listen l]\nendpoint = {udp}127.0.0.1:4443\ndefault = b\n[backend b]\nserver = {servers}\n{text}\n",
                "rules.ini",
            )
            found = warnings.warnings(rules, warnings.unchecked_backends(rules))
            self.assertEqual([one.severity for one in found], ["note"] * bool(advice), servers)
            self.assertTrue(all(one.message.endswith(advice) for one in found))


class FallbackTests(BackendTestCase):
    def test_outcomes_also_of_a_later_backend(self) -> None:
        c = "[backend c]\nserver = 10.0.0.3:80\nfallback = unix:/x"
        rules = self.read(f"fallback = c\n{c}")
        self.assertEqual(list(rules.backends), ["b", "c"])
        fallback = rules.backends["b"].fallback
        self.assertIs(fallback, rules.backends["c"])
        assert isinstance(fallback, Backend)
        self.assertEqual(
            fallback.fallback, Backend("unix:/x", (Server("unix:/x", "unix", path="/x"),))
        )
        self.assertEqual(
            [found.text for found in rules.servers() if found.kind == "unix"], ["unix:/x"]
        )
        self.assertEqual(lint(rules), [])

    def test_order_of_the_file(self) -> None:
        names = "zyxwv"
        text = "".join(
            f"[backend {n}]\nserver = h:1\nfallback = {m}\n"
            for n, m in zip(names, names[1:] + "b", strict=False)
        )
        self.assertEqual(list(self.read(text).backends), ["b", *names])

    def test_circle(self) -> None:
        for text, complaint in {
            "fallback = b": "6 fallback: is a circle: b -> b; give one of them another fallback",
            (
                "fallback = c\n[backend c]\nserver = h:1\nfallback = d\n"
                "[backend d]\nserver = h:1\nfallback = c"
            ): "12 fallback: is a circle: c -> d -> c; give one of them another fallback",
        }.items():
            self.refuses(text, complaint)

    def test_too_long_a_chain(self) -> None:
        numbers = [f"n{number}" for number in range(25)]
        sections = [
            f"[backend {one}]\nserver = h:1\nfallback = {other}\n"
            for one, other in zip(numbers, [*numbers[1:], "reset"], strict=True)
        ]
        for text in ("".join(sections), "".join(reversed(sections))):
            (complaint, *_) = self.complaints(text)
            self.assertIn("is too long a chain: over 20 backends", complaint)
        self.read("".join(sections[10:]))

    def test_unknown_name_with_the_nearest(self) -> None:
        self.refuses(
            "fallback = spear\n[backend spare]\nserver = h:1",
            "6 fallback: there is no [backend spear]; did you mean 'spare'? "
            "Write the name of a backend, HOST:PORT, unix:/path, close, reset or reject",
        )

    def test_second_of_a_name_is_checked_too(self) -> None:
        first, second = self.complaints("[backend b]\nserver = h:1\nfallback = c")
        self.assertIn("6 : is already at etc/rules.ini:4", first)
        self.assertIn("8 fallback: there is no [backend c]", second)


class FieldsTests(ReadingTestCase):
    def test_proxy_tlvs_need_version_2(self) -> None:
        backend = "[backend b]\nserver = a:1\n"
        good = f"{self.listen}{backend}proxy_protocol = v2\nproxy_tlvs = authority, alpn, unique-id, crc32c, ssl\n"
        self.assertEqual(
            self.read(good).backends["b"].proxy_tlvs,
            ("authority", "alpn", "unique-id", "crc32c", "ssl"),
        )
        needs = "needs 'proxy_protocol = v2'; write that, or remove this"
        for text, told in {
            "proxy_tlvs = ssl": f"5 proxy_tlvs: {needs}",
            "proxy_tlvs = ssl\nproxy_protocol = v1": f"5 proxy_tlvs: {needs}",
            "proxy_tlvs = ssl, ssl\nproxy_protocol = v2": (
                "5 proxy_tlvs: 'ssl' is given twice; keep one"
            ),
            "proxy_tlvs = sll\nproxy_protocol = v2": (
                "5 proxy_tlvs: must be authority, alpn, unique-id, crc32c or ssl, not 'sll'; did you mean 'ssl'?"
            ),
            "proxy_tlvs = ssl\nproxy_protocol = v3": (
                "6 proxy_protocol: must be off, v1 or v2, not 'v3'"
            ),
        }.items():
            self.refuses(f"{self.listen}{backend}{text}\n", told)


class SourceTests(BackendTestCase):
    def test_ports_or_ranges(self) -> None:
        text = "192.0.2.1:40000-50000, 192.0.2.2:40000, 192.0.2.3"
        self.assertEqual(self.backend(f"source = {text}").source, tuple(text.split(", ")))
        found = self.backend("source = [2001:db8::1]:1-65535", servers="[2001:db8::9]:1")
        self.assertEqual(found.source, ("[2001:db8::1]:1-65535",))

    def test_wrong_ports(self) -> None:
        for ports in ("0", "5-4", "1-65536", "70000"):
            (told,) = self.complaints(f"source = 192.0.2.1:{ports}")
            self.assertIn("has no valid ports; write them as in 192.0.2.1:40000-50000", told)
        (told,) = self.complaints("source = [2001:db8::1]:1-2")
        self.assertIn("is IPv4, but no address here is", told)
