"""nginx that looks into the first message of TLS, beside txmux."""

from tests.interop.converted.sidebyside import NginxTestCase


class PrereadTests(NginxTestCase):
    def test_names_and_group_for_others(self) -> None:
        self.prove(
            """
            map $ssl_preread_server_name $site {
                git.example.net    git;
                cloud.example.net  <cloud>;
                default            web;
            }
            upstreams git web;
            server {
                listen 127.0.0.1:<port>;
                ssl_preread on;
                preread_timeout 2s;
                proxy_pass $site;
            }
            """,
            {
                "git": "hello git.example.net, hello GIT.Example.Net",
                "cloud": "hello cloud.example.net",
                "web": "hello www.example.net, hello, ssh, http, binary",
                "": "silent",
            },
        )

    def test_longest_wildcard_then_expressions(self) -> None:
        self.prove(
            r"""
            map $ssl_preread_server_name $up {
                hostnames;
                ~^node[0-9]+\.example$            nodes;
                ~*^(?<who_is>[a-z]+)\.(test|lab)\.   lab;
                *.example.com                     all;
                *.eu.example.com                  eu;
                .example.org                      org;
                www.example.org                   www;
                mail.*                            mail;
                default                           rest;
            }
            upstreams nodes lab all eu org www mail rest;
            server { listen 127.0.0.1:<port>; ssl_preread on; proxy_pass $up; }
            """,
            {
                "nodes": "hello node12.example",
                "rest": "hello node.example, hello example.com, http",
                "lab": "hello joe.lab.example.net",
                "all": "hello joe.test.example.com, hello a.example.com, hello a.b.example.com, "
                "hello eu.example.com",
                "eu": "hello a.eu.example.com",
                "org": "hello example.org, hello x.example.org, hello mail.example.org",
                "www": "hello www.example.org",
                "mail": "hello mail.example.net",
            },
        )

    def test_without_hostnames(self) -> None:
        """Without ``hostnames``, a wildcard is an ordinary name for nginx, and is left out for txmux."""
        self.prove(
            """
            map $ssl_preread_server_name $up {
                *.example.com  <wild>;
                default        <rest>;
            }
            server { listen 127.0.0.1:<port>; ssl_preread on; proxy_pass $up; }
            """,
            {"rest": "hello a.example.com, hello b.example.net"},
            looks=1,
        )

    def test_several_variables_in_one_map(self) -> None:
        self.prove(
            r"""
            map "$ssl_preread_protocol|$ssl_preread_server_name" $up {
                "TLSv1.3|new.example"         <new>;
                "TLSv1.2|new.example"         <refuge>;
                "~^TLSv1\.2\|.*\.example$"    <old>;
                "~^TLS"                       <tls>;
                "|"                           <ssh>;
                default                       <rest>;
            }
            map $ssl_preread_alpn_protocols:$ssl_preread_server_name $acme {
                ~^acme-tls/1:                 <acme>;
                h2:app.example                <app>;
                default                       $up;
            }
            server { listen 127.0.0.1:<port>; ssl_preread on; proxy_pass $up; }
            server { listen 127.0.0.1:<port1>; ssl_preread on; proxy_pass $acme; }
            """,
            {
                "new": "hello new.example",
                "refuge": "hello new.example old",
                "old": "hello any.example old",
                "tls": "hello any.example, hello",
                "ssh": "ssh",
            },
            {
                "acme": "hello any.example alpn=acme-tls/1",
                "app": "hello app.example alpn=h2",
                "new": "hello new.example alpn=http/1.1",
                "ssh": "ssh",
            },
            looks=1,
        )

    def test_not_read(self) -> None:
        """Without ``ssl_preread`` the variables are empty, and nobody is waited for."""
        self.prove(
            """
            map $ssl_preread_server_name $up {
                a.example  <a>;
                ""         <none>;
                default    <rest>;
            }
            server { listen 127.0.0.1:<port>; proxy_pass $up; }
            """,
            {"none": "hello a.example, silent, http"},
        )
