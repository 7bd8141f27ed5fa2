"""Real servers that begin in the clear are reached by name through one port."""

import os
from typing import ClassVar
from unittest import SkipTest

from tests.interop.children import InteropTestCase, output_of
from tests.interop.servers import Certificate, make_certificate
from tests.interop.starttls import (
    ClearServer,
    start_dovecot,
    start_postfix,
    start_prosody,
    start_slapd,
    start_vsftpd,
)
from tests.support.services import Service

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
    """TLS goes all the way, except for the listener ``ended``."""

    certificates: ClassVar[dict[str, Certificate]]
    postfix: ClassVar[dict[str, ClearServer]]
    dovecot: ClassVar[dict[str, ClearServer]]
    ftp: ClassVar[ClearServer]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if os.geteuid():
            raise SkipTest("only root can start these servers")
        make, name = cls.make_folder, _NAMES[0]
        cls.certificates = {one: make_certificate(make(one), one) for one in _NAMES}
        certificate = cls.certificates[name]
        cls.postfix, cls.dovecot = {}, {}
        for one, its in cls.certificates.items():
            cls.postfix[one] = cls.share(start_postfix(make(f"postfix-{one}"), its, one))
            cls.dovecot[one] = cls.share(start_dovecot(make(f"dovecot-{one}"), its, one))
        cls.ftp = cls.share(start_vsftpd(make("vsftpd"), certificate))
        xmpp = cls.share(start_prosody(make("prosody"), certificate, name))
        ldap = cls.share(start_slapd(make("slapd"), certificate))
        ports = {
            "smtp": {one: its.port for one, its in cls.postfix.items()},
            "imap": {one: its.port for one, its in cls.dovecot.items()},
            "pop3": {one: its.clear for one, its in cls.dovecot.items()},
            "ftp": {name: cls.ftp.port},
            "xmpp": {name: xmpp.port},
            "ldap": {"localhost": ldap.port},
        }
        rules = _LISTEN.format(name="ended", protocol="smtp")
        rules += _ENDED.format(certificate=certificate, port=cls.postfix[name].clear)
        for protocol, by_name in ports.items():
            rules += _LISTEN.format(name=protocol, protocol=protocol)
            header = "v1" if protocol == "smtp" else "off"
            rules += "".join(
                _ROUTE.format(listener=protocol, name=one, port=port, header=header)
                for one, port in by_name.items()
            )
        cls.mux = cls.share(Service(cls.folder, rules))

    def assert_logged(self, protocol: str, name: str) -> None:
        record = self.mux.take_one(protocol)
        self.assertEqual((record["route"], record["reason"]), (f"{protocol}-{name}", "done"))
        self.assertEqual((record["facts"]["starttls"], record["facts"]["sni"]), (protocol, name))

    def curl(self, url: str, *more: str, name: str) -> bytes:
        protocol = url.partition(":")[0]
        port = self.mux.ports[protocol]
        return output_of(
            *("curl", "-q", "-sS", "--ssl-reqd", "--cacert", self.certificates[name].chain),
            *("--resolve", f"{name}:{port}:127.0.0.1", *more),
            url.format(f"{name}:{port}"),
        )

    def send(self, listener: str, name: str) -> None:
        output_of(
            *("swaks", "--server", f"127.0.0.1:{self.mux.ports[listener]}", "--tls"),
            *("--tls-verify", "--tls-ca-path", self.certificates[name].chain, "--tls-sni", name),
            *("--from", "me@example.net", "--to", f"{listener}@{name}"),
        )
        self.postfix[name].child.wait_for(f"to=<{listener}@{name}>.*status=sent")

    def test_mail_to_postfix(self) -> None:
        for name in _NAMES:
            self.send("smtp", name)
            self.assert_logged("smtp", name)

    def test_mail_to_postfix_without_tls(self) -> None:
        self.send("ended", _NAMES[0])
        record = self.mux.take_one("ended")
        self.assertEqual((record["route"], record["facts"]["tls_version"]), ("terminated", "1.3"))

    def test_mail_of_dovecot(self) -> None:
        for name in _NAMES:
            for protocol, path in {"imap": "INBOX;UID=1", "pop3": "1"}.items():
                mail = self.curl(f"{protocol}://{{}}/{path}", "-u", "me:secret", name=name)
                self.assertIn(f"Subject: {name}".encode(), mail)
                self.assert_logged(protocol, name)

    def test_file_of_vsftpd(self) -> None:
        (self.ftp.files / "file").write_text("content")
        self.assertEqual(self.curl("ftp://{}/file", name=_NAMES[0]), b"content")
        self.assert_logged("ftp", _NAMES[0])

    def test_stream_of_prosody(self) -> None:
        name = _NAMES[0]
        header = f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{name}' version='1.0'></stream:stream>"
        answer = output_of(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{self.mux.ports['xmpp']}", "-quiet"),
            *("-starttls", "xmpp", "-xmpphost", name, "-servername", name),
            *("-verify_return_error", "-CAfile", self.certificates[name].chain),
            stdin=header.encode(),
        )
        self.assertIn(b"<mechanism>", answer)
        self.assert_logged("xmpp", name)

    def test_entry_of_slapd(self) -> None:
        done = output_of(
            *("env", "LDAPTLS_REQCERT=never", "ldapsearch", "-x", "-ZZ"),
            *("-H", f"ldap://localhost:{self.mux.ports['ldap']}", "-s", "base", "-b", "", "+"),
        )
        self.assertIn(b"supportedExtension: 1.3.6.1.4.1.1466.20037", done)
        self.assert_logged("ldap", "localhost")
