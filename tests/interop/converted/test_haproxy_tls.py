"""HAProxy that ends TLS, beside txmux."""

from tests.interop.converted.sidebyside import SideBySideTestCase
from tests.interop.servers import make_certificate


class EndedTests(SideBySideTestCase):
    program = "haproxy"

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
            {"one": "tls a.example text, tls c.example silent", "": "http"},
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
                use_backend ssh if ssh
                use_backend web if HTTP { ssl_fc }
                use_backend plain if HTTP
                default_backend other
            """,
            {
                "ssh": "tls a.example ssh",
                "web": "tls b.example http",
                "other": "tls b.example redis, tls b.example silent",
            },
            {"ssh": "ssh", "plain": "http", "other": "redis, silent"},
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
            """,
            {
                "one": "tls a.example text",
                "two": "tls www.a.example silent, tls b.example text",
                "three": "tls c.example text",
                "four": "tls silent",
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
                use_backend two if speak_h2
                use_backend named if { ssl_fc_alpn http/1.1 } { ssl_fc_sni a.example }
                use_backend web if HTTP
                default_backend rest
            """,
            {
                "two": "tls a.example alpn=h2,http/1.1 text, tls a.example alpn=http/1.1,h2 http",
                "named": "tls a.example alpn=http/1.1 text",
                "web": "tls b.example alpn=http/1.1 http, tls a.example http",
                "rest": "tls b.example alpn=http/1.1 ssh, tls a.example ssh",
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
            """,
            {
                "": f"tls a.example text, tls a.example cert={other.both} text",
                "inside": f"tls a.example cert={client.both} text",
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
            """,
            {"": "text", "first": "silent from 127.0.0.2, http from 127.0.0.4"},
            {"": "text", "other": "silent from 127.0.0.2, http from 127.0.0.4"},
        )
