"""HAProxy that tells protocols apart by what clients say first, beside txmux."""

from __future__ import annotations

from tests.interop.converted.sidebyside import HaproxyTestCase


class FirstBytesTests(HaproxyTestCase):
    """A configuration each."""

    def test_ssh_by_seven_bytes_or_silence_and_https(self) -> None:
        self.prove(
            """
            global
                maxconn 200
                log 127.0.0.1 local0
            frontend shared
                bind 127.0.0.1:<port>
                option tcplog
                log global
                tcp-request inspect-delay 1s
                acl is_ssh payload(0,7) -m bin 5353482d322e30
                tcp-request content accept if is_ssh
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend ssh if is_ssh
                use_backend ssh if !{ req.ssl_hello_type 1 } !{ req.len 1: }
                default_backend web
            """,
            {"ssh": "ssh, silent", "web": "hello a.example, text"},
        )

    def test_silent_ssh(self) -> None:
        """Who has sent no byte by the end of the time goes to SSH, alone or beside its first bytes; from one network elsewhere."""
        self.prove(
            """
            frontend alone
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend far if { req.len 0 } { src 127.0.0.3 }
                use_backend ssh if { req.len 0 }
                default_backend web
            frontend beside
                bind 127.0.0.1:<port1>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend web if { req.ssl_hello_type 1 }
                use_backend ssh if { payload(0,4) -m bin 5353482d } or { req.len 0 }
            """,
            {"ssh": "silent", "far": "silent from 127.0.0.3", "web": "ssh, hello a"},
            {"ssh": "silent, ssh", "web": "hello a", "": "text"},
        )

    def test_http_ssh_openvpn_and_the_rest(self) -> None:
        self.prove_frontend(
            """
            tcp-request content accept if HTTP
            tcp-request content accept if { req.ssl_hello_type 1 }
            acl from_ssh req.payload(0,4) -m str SSH-
            acl from_vpn req.payload(2,1) -m bin 38
            tcp-request content accept if from_ssh or from_vpn
            use_backend web if HTTP
            use_backend ssh if from_ssh
            use_backend vpn if from_vpn !{ req.ssl_hello_type 1 }
            default_backend tls
            """,
            {
                "web": "http",
                "ssh": "ssh",
                "vpn": "openvpn",
                "tls": "hello a.example, socks, silent",
            },
        )

    def test_expressions_without_case_on_two_ports(self) -> None:
        self.prove(
            r"""
            frontend entry
                mode tcp
                bind 127.0.0.1:<port> tfo
                bind 127.0.0.1:<port1> tfo
                tcp-request inspect-delay 1s
                tcp-request content capture req.ssl_sni len 100
                tcp-request content accept if { req.ssl_hello_type 1 }
                acl ssh payload(0,7) -m bin 5353482d322e30
                acl upgraded req.payload(0,0) -m reg -i "upgrade:\s*websocket"
                acl upload req.payload(0,20) -m reg -i "post\s+/upload"
                use_backend ssh if ssh
                use_backend up if upload
                use_backend tunnel if upgraded
                default_backend rest
            """,
            {"ssh": "ssh", "up": "post", "tunnel": "upgrade", "rest": "http, silent"},
            {"tunnel": "upgrade", "rest": "hello a.example"},
            looks=1,
        )

    def test_rdp_with_cookie_and_no_one_else(self) -> None:
        self.prove(
            """
            frontend desktops
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if RDP_COOKIE
                tcp-request content reject
                default_backend farm
            backend farm
                balance leastconn
                server one <one>
            """,
            {"one": "rdp", "": "http, text, silent, hello a.example"},
        )

    def test_all_but_tls_is_turned_away(self) -> None:
        self.prove_frontend(
            """
            tcp-request content reject unless { req.ssl_hello_type 1 }
            default_backend web
            """,
            {"web": "hello a.example, hello", "": "http, ssh, half, silent"},
        )

    def test_binary_text_and_expression(self) -> None:
        self.prove_frontend(
            """
            acl socks req.payload(0,1) -m bin 05
            acl redis req.payload(0,1) -m str *
            acl jabber req.payload(0,60) -m reg ^<.xml.*stream
            tcp-request content accept if { req.len gt 0 }
            use_backend socks if socks
            use_backend redis if redis
            use_backend jabber if jabber
            default_backend other
            """,
            {"socks": "socks", "redis": "redis", "jabber": "xmpp", "other": "http, silent"},
            looks=1,
        )

    def test_http_by_method_and_host(self) -> None:
        self.prove_frontend(
            """
            tcp-request content accept if HTTP
            use_backend upload if METH_POST
            use_backend named if { hdr(host) -i a.example }
            default_backend other
            """,
            {"upload": "post", "named": "http", "other": "text, silent"},
        )

    def test_alternatives_negations_and_brackets(self) -> None:
        self.prove_frontend(
            """
            acl ssl req_ssl_hello_type 1
            acl office src 127.0.0.2 127.0.0.3
            tcp-request content accept if { req.len gt 0 }
            use_backend a if ssl office or HTTP !office
            use_backend b unless ssl || office
            default_backend c
            """,
            {
                "c": "hello, http from 127.0.0.3, text from 127.0.0.2, silent from 127.0.0.2",
                "a": "hello from 127.0.0.2, http",
                "b": "text, silent",
            },
        )
