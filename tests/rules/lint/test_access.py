"""Warnings about PROXY headers, TLS that is ended here, and what stands under it."""

import importlib.util
import re
import sys
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from tests.support.installed import names_missing
from txmux.rules.lint.warnings import lint
from txmux.rules.reading.parser import parse

LISTEN = "[listen public]\nendpoint = :443\n"
TLS = "[route end]\nmatch = tls\nterminate_tls = a.pem\n"
ASKS = f"{TLS}tls_client_ca = ca.pem\ntls_client = optional\n"
CRL = "tls_client_crl = crl.pem\n"
TO = "backend = 127.0.0.1:1\n"
OTHER = "backend = 127.0.0.1:2\n"
NAMED = "[route n]\nmatch = tls\nbackend = b\n"
OPEN = (
    "8: [backend b] allow_names: this is an open proxy: everyone may come to [listen public], and go to any name; "
    "write 'allow' there, or the names that are meant"
)
UNBOUND = (
    "8: [backend b] allow_names: one client of [listen public] can have any number of names looked up; "
    "add for example 'max_connections_per_source = 100' there"
)
BOUND = "max_connections_per_source = 1\n"
SAME = "it has no effect with '{sni}:443', which is another server for each client; remove it"
INSIDE = f"[route x]\nmatch = any\nunder = end\n{TO}"

# Each begins after a listener of two lines.
FILES = {
    # PROXY headers
    "accept_proxy_from = 0.0.0.0/0, ::/0": (
        "3: [listen public] accept_proxy_from: every IPv4 and IPv6 client can claim any address, and so pass every "
        "check of addresses; name only the proxies in front of txmux"
    ),
    "accept_proxy_from = 10.0.0.0/8, 0.0.0.0/1\n  128.0.0.0/1": (
        "3: [listen public] accept_proxy_from: every IPv4 client can claim any address, and so pass every "
        "check of addresses; name only the proxies in front of txmux"
    ),
    "accept_proxy_from = 10.0.0.0/8\nproxy_timeout = 1s": "",
    "proxy_timeout = 1s": (
        "3: [listen public] proxy_timeout: no header is waited for without 'accept_proxy_from'; add that"
    ),
    # STARTTLS
    f"starttls = smtp\n[route x]\nmatch = ssh\n  tls\n{TO}": (
        "5: [route x] match: 'ssh' is never TLS, with which clients of [listen public] begin; match tls, or remove this line"
    ),
    f"starttls = smtp\n[listen b]\nendpoint = :2\n[route x]\nunder = *\nmatch = ssh\n  tls\n{TO}": "",
    # TLS for nothing
    TLS: (
        "5: [route end] terminate_tls: no route is under this one, so all clients go to 'default' or "
        "'silent'; add routes with 'under = end', or a backend"
    ),
    TLS + TO: "",
    TLS + INSIDE: "",
    f"[route end]\nmatch = ssh\n  tls\nterminate_tls = a.pem\n{INSIDE}": (
        "4: [route end] match: 'ssh' is never TLS, but this route terminates TLS; match tls, or remove this line"
    ),
    f"[route end]\nmatch = not ssh\nterminate_tls = a.pem\n{TO}": "",
    f"[route end]\nmatch = any\nterminate_tls = a.pem\n{TO}": "",
    f"[route end]\nmatch = payload hex=16\nterminate_tls = a.pem\n{TO}": "",
    # ALPN
    f"[route end]\nmatch = tls alpn=h2,http/1.1\nterminate_tls = a.pem\n{INSIDE}": (
        "4: [route end] match: 'tls alpn=h2,http/1.1' is for clients that want a protocol, but none is offered; add 'alpn = h2'"
    ),
    f"[route end]\nmatch = tls alpn=h2\nterminate_tls = a.pem\nalpn = h2\n{INSIDE}": "",
    f"{TLS}[route x]\nmatch = http2\n  ssh\nunder = end\n{TO}": (
        "7: [route x] match: 'http2' is HTTP/2, which no client begins in TLS that does not offer it; "
        "add 'alpn = h2, http/1.1' to [route end]"
    ),
    f"{TLS}alpn = h2\n[route x]\nmatch = http2\nunder = end\n{TO}": "",
    # destinations by name
    f"{NAMED}[backend b]\nserver = {{sni}}:443\nallow_names = *\n": f"{OPEN}\n{UNBOUND}",
    f"{BOUND}{NAMED}[backend b]\nserver = {{sni}}:443\nallow_names = *\n": OPEN.replace("8:", "9:"),
    f"{NAMED}[backend b]\nserver = {{sni}}:443\nallow_names = ~.*\n": f"{OPEN}\n{UNBOUND}",
    "[route n]\nmatch = tls sni=a\nbackend = c\n[backend b]\nserver = {sni}:443\nallow_names = *\n"
    "[backend c]\nserver = 127.0.0.1:1\nfallback = b\n": f"{OPEN}\n{UNBOUND}",
    f"{BOUND}default = b\n[route n]\nmatch = ssh\n{TO}[backend b]\nserver = {{sni}}:443\nallow_names = *\n": (
        OPEN.replace("8:", "10:")
    ),
    f"allow = 10.0.0.0/8\n{NAMED}[backend b]\nserver = {{sni}}:443\nallow_names = *\n": (
        UNBOUND.replace("8:", "9:")
    ),
    f"{NAMED}from = 10.0.0.0/8\n[backend b]\nserver = {{sni}}:443\nallow_names = *\n": (
        UNBOUND.replace("8:", "9:")
    ),
    "[listen u]\nendpoint = udp:443\nallow = 10.0.0.0/8\nmax_flows_per_source = 9\n[route q]\nunder = u\nmatch = quic\nbackend = b\n"
    "[backend b]\nserver = udp:{sni}:443\nallow_names = *\n": "",
    f"{NAMED}[backend b]\nserver = {{sni}}:443\nallow_names = *.net\nbalance = source-hash\nslow_start = 9s\n": (
        f"9: [backend b] balance: {SAME}\n10: [backend b] slow_start: {SAME}"
    ),
    f"{NAMED}[backend b]\nserver = {{sni}}:1\n  {{sni}}:2\nallow_names = *.net\nbalance = source-hash\n": "",
    f"{NAMED}[backend b]\nserver = {{sni}}:443\nallow_names = *.net, *.com\n": "",
    f"{NAMED}[backend b]\nserver = {{host}}:443\nallow_names = *.net\n": (
        "4: [route n] match: clients of 'tls' say no name for {host}, and get the reason no-name; match http"
    ),
    "[route n]\nmatch = any\nbackend = b\n[backend b]\nserver = {sni}:443\nallow_names = *.net\n": (
        "4: [route n] match: clients of 'any' say no name for {sni}, and get the reason no-name; "
        "match tls, quic, dtls or postgres"
    ),
    f"{TLS}[route x]\nmatch = any\nunder = end\nbackend = b\n[backend b]\nserver = {{sni}}:443\nallow_names = *.net\n": "",
    # reach, inside TLS
    f"{TLS}{INSIDE}[route y]\nmatch = ssh\nunder = end\n{TO}": (
        "7: [route x] match: 'any' makes the later [route y] unreachable; put this route last"
    ),
    f"[route a]\nmatch = any\nunder = public\n{TO}{TLS}under = public\n{INSIDE}": (
        "4: [route a] match: 'any' makes the later [route end] unreachable; put this route last"
    ),
    f"{TLS}from = 10.0.0.0/8\n{INSIDE}from = 192.0.2.0/24": (
        "11: [route x] from: leaves no client that [route end] may have; "
        "correct one of them, or remove this route"
    ),
    f"{TLS}from = 10.0.0.0/8\n{INSIDE}from = 10.1.0.0/16": "",
    f"{TLS}dry_run = yes\n{INSIDE}": (
        "9: [route x] under: no client gets here while [route end] has 'dry_run = yes'; remove that"
    ),
    f"{TLS}{INSIDE}[route y]\nmatch = tls sni=x\nterminate_tls = b.pem\n{TO}": (
        "11: [route y] match: is never reached: all its clients go to the earlier [route end] (x.ini:4); put this route first, or remove this"
    ),
    f"{TLS}{TO}[route x]\nmatch = redis\nfrom = 10.0.0.0/8\nunder = end\n{TO}": (
        "6: [route end] backend: clients that 'from' and 'not_from' of [route x] keep away come to the same "
        "server if they match no route under this one; keep them out by 'from' or 'not_from' here, or use another server"
    ),
    f"{TLS}[route x]\nmatch = payload offset=40000 text=x\nunder = end\n{TO}": (
        "7: [route x] match: 'payload offset=40000 text=x' never decides: it looks at 40001 bytes, but 'peek_limit' "
        "is 32768 ([listen public]); raise that, or look at fewer"
    ),
    # certificates of clients
    f"{ASKS}{INSIDE}client_cert = any\n[route y]\nmatch = any\nunder = end\n{OTHER}": "",
    f"{ASKS}{INSIDE}client_cert = any\n[route y]\nmatch = any\nunder = end\n{OTHER}client_cert = san=x any": (
        "9: [route x] match: 'any' makes the later [route y] unreachable; put this route last"
    ),
    f"{ASKS}{INSIDE}client_cert = revoked": (
        "12: [route x] client_cert: no certificate is known to be revoked; add 'tls_client_crl' to [route end]"
    ),
    f"{ASKS}allow_client = cn=a@b san=~a@b\n    san=email:a@b\n    san=fe80::1\n{INSIDE}client_cert = san=a,x://b subject=a@b,san=10.0.0.1": (
        "8: [route end] allow_client: '~a@b' fits no DNS name; write san=email:~a@b\n"
        "10: [route end] allow_client: 'fe80::1' fits no DNS name; write san=ip:fe80::1\n"
        "15: [route x] client_cert: 'x://b' fits no DNS name; write san=uri:x://b\n"
        "15: [route x] client_cert: '10.0.0.1' fits no DNS name; write san=ip:10.0.0.1"
    ),
    f"{ASKS}{CRL}{INSIDE}client_cert = revoked\n[route y]\nmatch = any\nunder = end\n{OTHER}client_cert = none": "",
    f"{ASKS}{CRL}{INSIDE}client_cert = none\n[route y]\nmatch = any\nunder = end\n{OTHER}client_cert = revoked": (
        "10: [route x] match: 'any' makes the later [route y] unreachable; put this route last"
    ),
    f"{TLS}tls_client_ca = ca.pem\n{INSIDE}client_cert = none": (
        "11: [route x] client_cert: no such client gets here, since [route end] wants a valid certificate; add 'tls_client = optional' there"
    ),
    f"{ASKS}{TO}{INSIDE}client_cert = san=x": (
        "8: [route end] backend: clients that 'client_cert', 'from' and 'not_from' of [route x] keep away come to the same "
        "server if they match no route under this one; keep them out by an earlier route under this one, or use another server"
    ),
    f"{ASKS}{TO}{INSIDE}client_cert = none": "",
    # times
    f"[route a]\nmatch = ssh\nduring = mon\n{TO}[route b]\nmatch = ssh\n{TO}": "",
    f"[route a]\nmatch = ssh\nduring = mon\n{TO}[route b]\nmatch = ssh\nduring = tue\n{TO}": "",
    f"[route a]\nmatch = ssh\nduring = mon\n  tue\n{TO}[route b]\nmatch = ssh\nduring = tue\n{TO}": (
        "9: [route b] match: is never reached: all its clients go to the earlier [route a] (x.ini:4); put this route first, or remove this"
    ),
    f"[route a]\nmatch = ssh\n{TO}[route b]\nmatch = ssh\nduring = tue\n{TO}": (
        "7: [route b] match: is never reached: all its clients go to the earlier [route a] (x.ini:4); put this route first, or remove this"
    ),
}


class WarningTests(SynchronousTestCase):
    maxDiff = None

    def test_files_have_exactly_these_warnings(self) -> None:
        for text, expected in FILES.items():
            if names_missing(text):
                continue
            rules = parse(LISTEN + dedent(text), "x.ini")
            found = [str(problem).replace("x.ini:", "", 1) for problem in lint(rules)]
            told = re.sub("^([0-9]+): ", r"\1: warning: ", expected, flags=re.MULTILINE)
            self.assertEqual("\n".join(found), told, text)

    def test_metrics_without_the_package(self) -> None:
        """A service answers 501 there, so a warning names the extra, with the command of this installation."""
        rules = parse(f"[txmux]\nmetrics = 127.0.0.1:9443\n{LISTEN}", "x.ini")
        self.patch(importlib.util, "find_spec", str)
        self.assertEqual(lint(rules), [])
        self.patch(importlib.util, "find_spec", lambda _: None)
        (said,) = map(str, lint(rules))
        told = "x.ini:2: warning: [txmux] metrics: needs the package prometheus_client, which is not installed"
        self.assertTrue(said.startswith(told), said)
        self.assertTrue(said.endswith(f"{sys.prefix}/bin/pip install 'txmux[admin]'"), said)
