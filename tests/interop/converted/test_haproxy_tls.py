"""HAProxy that ends TLS, beside txmux."""

from __future__ import annotations

from tests.interop.converted.sidebyside import HaproxyTestCase
from tests.interop.servers import make_certificate


class EndedTests(HaproxyTestCase):
    """A configuration each."""

    def setUp(self) -> None:
        super().setUp()
        make_certificate(self.own_folder, "a.example", "www.a.example")
        make_certificate(self.own_folder, "b.example")

    def test_tls_ends_and_all_else_is_closed(self) -> None:
        self.prove(
            """
            frontend mqtts
                bind 127.0.0.1:<port> ssl crt <folder>/a.example.both
                default_backend brokers
            backend brokers
                balance leastconn
                server one <one>
            """,
            {"tls a.example text": "one", "tls c.example silent": "one", "http": ""},
        )

    def test_ssh_and_http_inside_and_in_plain(self) -> None:
        self.prove(
            """
            global
                crt-base <folder>
            frontend both
                bind 127.0.0.1:<port> ssl crt a.example.both crt b.example.both
                bind 127.0.0.1:<port1>
                tcp-request inspect-delay 1s
                acl ssh req.payload(0,7) -m str SSH-2.0
                tcp-request content accept if ssh
                tcp-request content accept if HTTP
                use_backend sshd if ssh
                use_backend web if HTTP { ssl_fc }
                use_backend plain if HTTP
                default_backend other
            backend sshd
                server s <ssh>
            backend web
                server s <web>
            backend plain
                server s <plain>
            backend other
                server s <other>
            """,
            {
                "tls a.example ssh": "ssh",
                "tls b.example http": "web",
                "tls b.example redis": "other",
                "tls b.example silent": "other",
            },
            {"ssh": "ssh", "http": "plain", "redis": "other", "silent": "other"},
        )

    def test_names(self) -> None:
        self.prove(
            """
            frontend f
                bind 127.0.0.1:<port> ssl crt <folder>/a.example.both
                use_backend one if { ssl_fc_sni a.example }
                use_backend two if { ssl_fc_sni -m end .a.example } or { ssl_fc_sni -i B.example }
                use_backend three if { ssl_fc_has_sni }
                default_backend four
            backend one
                server s <one>
            backend two
                server s <two>
            backend three
                server s <three>
            backend four
                server s <four>
            """,
            {
                "tls a.example text": "one",
                "tls www.a.example silent": "two",
                "tls b.example text": "two",
                "tls c.example text": "three",
                "tls silent": "four",
            },
        )

    def test_agreed_protocols_names_and_what_is_inside(self) -> None:
        self.prove(
            """
            frontend https
                bind 127.0.0.1:<port> ssl crt <folder>/a.example.both alpn h2,http/1.1
                tcp-request inspect-delay 1s
                tcp-request content accept if HTTP
                acl speak_h2 ssl_fc_alpn -i h2
                use_backend h2 if speak_h2
                use_backend named if { ssl_fc_alpn http/1.1 } { ssl_fc_sni a.example }
                use_backend web if HTTP
                default_backend rest
            backend h2
                server s <two>
            backend named
                server s <named>
            backend web
                server s <web>
            backend rest
                server s <rest>
            """,
            {
                "tls a.example alpn=h2,http/1.1 text": "two",
                "tls a.example alpn=http/1.1,h2 http": "two",
                "tls a.example alpn=http/1.1 text": "named",
                "tls b.example alpn=http/1.1 http": "web",
                "tls b.example alpn=http/1.1 ssh": "rest",
                "tls a.example ssh": "rest",
                "tls a.example http": "web",
            },
        )

    def test_certificate_list_and_client_certificates(self) -> None:
        client = make_certificate(self.own_folder, "client.example")
        other = make_certificate(self.own_folder, "other.example")
        (self.own_folder / "list").write_text(f"# all\n{self.own_folder}/a.example.both\n")
        self.prove(
            """
            global
                ca-base <folder>
                ssl-default-bind-options ssl-min-ver TLSv1.2
            frontend f
                bind 127.0.0.1:<port> ssl crt-list <folder>/list ca-file client.example.pem verify required
                default_backend inside
            backend inside
                server s <inside>
            """,
            {
                "tls a.example text": "",
                f"tls a.example cert={client.both} text": "inside",
                f"tls a.example cert={other.both} text": "",
            },
        )

    def test_only_the_office_by_two_ports(self) -> None:
        self.prove(
            """
            frontend f
                bind 127.0.0.1:<port>,127.0.0.1:<port1>
                acl office src 127.0.0.2 127.0.0.4
                acl second dst_port <port1>
                tcp-request content reject if !office
                use_backend other if second
                default_backend first
            backend first
                server s <first>
            backend other
                server s <other>
            """,
            {"text": "", "silent from 127.0.0.2": "first", "http from 127.0.0.4": "first"},
            {"text": "", "silent from 127.0.0.2": "other", "http from 127.0.0.4": "other"},
        )
