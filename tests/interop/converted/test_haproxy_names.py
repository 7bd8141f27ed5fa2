"""HAProxy that routes TLS by the names and protocols in its first message, beside txmux."""

from __future__ import annotations

from tests.interop.converted.sidebyside import HaproxyTestCase


class NameTests(HaproxyTestCase):
    """A configuration each."""

    def test_names_without_case(self) -> None:
        self.prove(
            """
            frontend fe_tls
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 2s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend app1 if { req.ssl_sni -i app1.example.net }
                use_backend app2 if { req.ssl_sni -i app2.example.net }
                default_backend rest
            backend app1
                server s <one> check
            backend app2
                server s <two> check
            """,
            {
                "one": "hello app1.example.net",
                "two": "hello APP2.Example.Net",
                "rest": "hello other.example, hello",
            },
        )

    def test_ends_beginnings_parts_and_expressions(self) -> None:
        self.prove_frontend(
            """
            tcp-request content accept if { req.ssl_hello_type 1 }
            acl mail req.ssl_sni -m beg mail. imap.
            acl zone req_ssl_sni -m end .zone.example
            acl test req.ssl_sni -m sub staging
            acl numbered req.ssl_sni -m reg ^node[0-9]+\\.example$
            use_backend mail if mail
            use_backend zone if zone !test
            use_backend test if test
            use_backend nodes if numbered
            default_backend rest
            """,
            {
                "mail": "hello mail.example",
                "zone": "hello a.zone.example",
                "test": "hello staging.zone.example, hello my-staging.example",
                "nodes": "hello node12.example",
                "rest": "hello node.example, ssh, silent",
            },
        )

    def test_alpn(self) -> None:
        self.prove_frontend(
            """
            tcp-request content accept if { req.ssl_hello_type 1 }
            use_backend acme if { req.ssl_alpn acme-tls/1 }
            use_backend xmpp if { req.ssl_alpn -m sub xmpp }
            default_backend web
            """,
            {
                "acme": "hello a.example alpn=acme-tls/1",
                "xmpp": "hello a.example alpn=xmpp-client",
                "web": "hello a.example alpn=h2,http/1.1, hello a.example",
            },
        )

    def test_without_name_is_turned_away(self) -> None:
        self.prove_frontend(
            """
            tcp-request content reject if { req.ssl_hello_type 1 } !{ req.ssl_sni -m found }
            tcp-request content accept if { req.ssl_hello_type 1 }
            default_backend web
            """,
            {"": "hello", "web": "hello a.example, http, silent"},
        )

    def test_names_other_tls_and_nobody_else(self) -> None:
        self.prove(
            """
            defaults
                mode tcp
                option tcplog
                option dontlognull
                timeout connect 24h
                timeout client 24h
                timeout server 24h
            frontend ssl
                mode tcp
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                acl one req_ssl_sni -i one.example
                acl also req_ssl_sni -i one.example
                acl two  req_ssl_sni -i two.example
                use_backend first if also
                use_backend second if two
                use_backend third if { req.ssl_hello_type 1 } !also !two !one
            backend first
                option ssl-hello-chk
                server s <first>
            backend second
                option ssl-hello-chk
                server s <second>
            """,
            {
                "first": "hello one.example",
                "second": "hello Two.Example",
                "third": "hello x.example, hello",
                "": "ssh, silent",
            },
        )

    def test_neither_of_two_protocols(self) -> None:
        self.prove_frontend(
            """
            tcp-request content accept if { req.ssl_hello_type 1 }
            acl is_h1 req.ssl_alpn http/1.1
            acl is_h2 req.ssl_alpn h2
            acl has_sni req.ssl_sni -m found
            use_backend nameless if !is_h1 !is_h2 !has_sni
            use_backend vpn if !is_h1 !is_h2 has_sni
            default_backend web
            """,
            {
                "web": "hello a.example alpn=h2,http/1.1, hello a.example alpn=http/1.1, hello alpn=h2",
                "vpn": "hello a.example, hello a.example alpn=x",
                "nameless": "hello, ssh, silent",
            },
        )

    def test_frontend_behind_frontend_by_proxy_header(self) -> None:
        self.prove(
            """
            frontend outer
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend inner if { req.ssl_sni -i a.example }
                default_backend rest
            backend inner
                server loop 127.0.0.1:<port1> send-proxy-v2
            frontend inner_tls
                bind 127.0.0.1:<port1> accept-proxy
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend office if { src 127.0.0.2 }
                default_backend public
            """,
            {
                "public": "hello a.example",
                "office": "hello a.example from 127.0.0.2",
                "rest": "hello b.example",
            },
        )
