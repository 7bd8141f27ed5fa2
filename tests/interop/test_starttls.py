"""Real servers that begin in the clear are reached by name through one port."""

import os
from unittest import SkipTest

from tests.interop import starttls
from tests.support.kit import InteropTestCase, Service, make_certificate, output_of

_NAMES = ("one.example.com", "two.example.com")
_LISTEN = """
[listen {name}]
endpoint = 127.0.0.1:0
starttls = {protocol}
"""
_ROUTE = """
[route {listener}-{name}]
under = {listener}
match = tls sni={name}
backend = {listener}-{name}
[backend {listener}-{name}]
server = 127.0.0.1:{port}
proxy_protocol = {header}
"""
_ENDED = """
[route terminated]
under = ended
match = tls
terminate_tls = {certificate.both}
backend = 127.0.0.1:{port}
"""


class StartTLSTests(InteropTestCase):
    def curl(self, url: str, *more: str, name: str) -> bytes:
        port = self.mux.ports[url.partition(":")[0]]
        own = ("-q", "-sS", "--ssl-reqd", "--cacert", self.certificates[name].chain)
        there = ("--resolve", f"{name}:{port}:127.0.0.1", *more, url.format(f"{name}:{port}"))
        return output_of("curl", *own, *there)

    def send(self, listener: str, name: str) -> None:
        there = ("--server", f"127.0.0.1:{self.mux.ports[listener]}", "--tls", "--tls-sni", name)
        trust = ("--tls-verify", "--tls-ca-path", self.certificates[name].chain)
        output_of("swaks", *there, *trust, "--from", "me@example.net", "--to", f"{listener}@{name}")
        self.postfix[name].child.wait_for(f"to=<{listener}@{name}>.*status=sent")

    def assert_logged(self, protocol: str, name: str) -> None:
        record = self.mux.take_one(protocol)
        self.assertEqual((record["route"], record["reason"]), (f"{protocol}-{name}", "done"))
        self.assertEqual((record["facts"]["starttls"], record["facts"]["sni"]), (protocol, name))

    def test_each_protocol(self) -> None:
        """TLS goes all the way, except for the listener ``ended``, whose server has none."""
        if os.geteuid():
            raise SkipTest("only root can start these servers")
        make, name = self.make_folder, _NAMES[0]
        self.certificates = {one: make_certificate(make(one), one) for one in _NAMES}
        certificate = self.certificates[name]
        self.postfix, dovecot = dict[str, starttls.ClearServer](), dict[str, starttls.ClearServer]()
        for one, its in self.certificates.items():
            self.postfix[one] = self.own(starttls.start_postfix(make(f"postfix-{one}"), its, one))
            dovecot[one] = self.own(starttls.start_dovecot(make(f"dovecot-{one}"), its, one))
        ftp = self.own(starttls.start_vsftpd(make("vsftpd"), certificate))
        xmpp = self.own(starttls.start_prosody(make("prosody"), certificate, name))
        ldap = self.own(starttls.start_slapd(make("slapd"), certificate))
        rules = _LISTEN.format(name="ended", protocol="smtp")
        rules += _ENDED.format(certificate=certificate, port=self.postfix[name].clear)
        for protocol, header, ports in (
            ("smtp", "v1", {one: its.port for one, its in self.postfix.items()}),
            ("imap", "off", {one: its.port for one, its in dovecot.items()}),
            ("pop3", "off", {one: its.clear for one, its in dovecot.items()}),
            ("ftp", "off", {name: ftp.port}),
            ("xmpp", "off", {name: xmpp.port}),
            ("ldap", "off", {"localhost": ldap.port}),
        ):
            rules += _LISTEN.format(name=protocol, protocol=protocol)
            for one, port in ports.items():
                rules += _ROUTE.format(listener=protocol, name=one, port=port, header=header)
        self.mux = self.own(Service(self.folder, rules))

        for one in _NAMES:
            self.send("smtp", one)
            self.assert_logged("smtp", one)
        self.send("ended", name)
        record = self.mux.take_one("ended")
        self.assertEqual((record["route"], record["facts"]["tls_version"]), ("terminated", "1.3"))
        for one in _NAMES:
            for protocol, path in {"imap": "INBOX;UID=1", "pop3": "1"}.items():
                mail = self.curl(f"{protocol}://{{}}/{path}", "-u", "me:secret", name=one)
                self.assertIn(f"Subject: {one}".encode(), mail)
                self.assert_logged(protocol, one)
        (ftp.files / "file").write_text("content")
        self.assertEqual(self.curl("ftp://{}/file", name=name), b"content")
        self.assert_logged("ftp", name)
        header = f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{name}' version='1.0'></stream:stream>"
        there = ("-connect", f"127.0.0.1:{self.mux.ports['xmpp']}", "-quiet", "-servername", name)
        how = ("-starttls", "xmpp", "-xmpphost", name, "-verify_return_error", "-CAfile")
        client = ("openssl", "s_client", *there, *how, certificate.chain)
        self.assertIn(b"<mechanism>", output_of(*client, stdin=header.encode()))
        self.assert_logged("xmpp", name)
        search = ("env", "LDAPTLS_REQCERT=never", "ldapsearch", "-x", "-ZZ")
        at = ("-H", f"ldap://localhost:{self.mux.ports['ldap']}", "-s", "base", "-b", "", "+")
        self.assertIn(b"supportedExtension: 1.3.6.1.4.1.1466.20037", output_of(*search, *at))
        self.assert_logged("ldap", "localhost")
