"""What becomes of HAProxy's decisions, and of whole files."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, looks, rules_of, silent_of
from tests.convert.haproxy_pieces import frontend, routes
from tests.programs import require_program
from txmux.convert.writer import ConvertError
from txmux.rules.model import Backend, Refusal

_BACKENDS = """
backend a
    server a 127.0.0.1:9
backend b
    server b 127.0.0.1:2
"""


_NOBODY = ("allow = 255.255.255.255/32",)


class DecisionTests(SynchronousTestCase):
    """Who is led where."""

    def test_default(self) -> None:
        """The default backend has silent clients, too."""
        listener = rules_of(frontend("default_backend a")).listeners[0]
        for outcome in (silent_of(listener), listener.default):
            assert isinstance(outcome, Backend)
            self.assertEqual(outcome.name, "a")

    def test_unconditional(self) -> None:
        """A ``use_backend`` without a condition ends the list."""
        found = frontend("use_backend a if HTTP", "use_backend b", "default_backend a")
        self.assertIn("default = b\n", found.text)

    def test_unknown_backend(self) -> None:
        """A backend that is not there, or not the same for all, is told; its clients go nowhere else."""
        for line in ("default_backend x", "use_backend x if HTTP"):
            self.assertIn("there is no backend", looks(frontend(line))[0])
        found = frontend("use_backend %[req.ssl_sni] if HTTP", "default_backend a")
        self.assertIn("put together for each client", looks(found)[0])
        self.assertIn("match = http\nbackend = close\n", found.text)

    def test_delay(self) -> None:
        """The inspection delay is ``detect_timeout``, also that of a backend; without any route nobody waits."""
        asks = "use_backend a if HTTP"
        for lines, expected in (
            (("tcp-request inspect-delay 3s", asks), 3),
            (("tcp-request inspect-delay 1500", asks), 1.5),
            (("tcp-request inspect-delay 3s", "default_backend a"), 0.001),
            (("default_backend a",), 0.001),
            ((asks,), 5),
        ):
            found = frontend(*lines)
            self.assertEqual(rules_of(found).listeners[0].detect_timeout, expected)
            self.assertEqual(
                "HAProxy decides by what has come at once" in found.text, expected == 5
            )

    def test_accepted(self) -> None:
        """To accept only ends the waiting, which routes do by themselves."""
        found = frontend("tcp-request content accept if HTTP", "use_backend a if HTTP")
        self.assertEqual((len(rules_of(found).routes), found.warnings), (1, ()))

    def test_rejected(self) -> None:
        """Who is rejected has a route that closes, before all others."""
        lines = ("use_backend a if { req_ssl_sni x }", "default_backend b")
        self.assertEqual(
            routes("tcp-request content reject if { req_ssl_ver 3.0 }", *lines),
            [(["tls version=ssl3"], "close"), (["tls sni=x"], "a")],
        )

    def test_others_rejected(self) -> None:
        """If all but some are rejected, so is who says nothing, or half of it: these only have routes."""
        for rejection in (
            "tcp-request content reject if !{ req_ssl_hello_type 1 }",
            "tcp-request content reject unless { req_ssl_hello_type 1 }",
            "tcp-request content silent-drop if !{ req_ssl_hello_type 1 } or FALSE",
        ):
            lines = (rejection, "use_backend a if { req_ssl_sni x }", "default_backend b")
            self.assertEqual(routes(*lines), [(["tls sni=x"], "a"), (["tls"], "b")])
            listener = rules_of(frontend(*lines)).listeners[0]
            self.assertEqual(
                (silent_of(listener), listener.default), (Refusal.CLOSE, Refusal.CLOSE)
            )

    def test_all_others_rejected(self) -> None:
        """If all others are rejected, who is accepted has routes, and the default is to close."""
        lines = (
            "tcp-request content accept if { req_ssl_hello_type 1 }",
            "tcp-request content accept if { req.payload(0,1) 16 }",
            "tcp-request content reject",
            "use_backend a if { req_ssl_sni x }",
            "default_backend b",
        )
        self.assertEqual(
            routes(*lines),
            [(["tls sni=x"], "a"), (["tls"], "b"), (["payload hex=16"], "b")],
        )
        found = frontend(*lines)
        listener = rules_of(found).listeners[0]
        self.assertEqual((silent_of(listener), listener.default), (Refusal.CLOSE, Refusal.CLOSE))
        (look,) = looks(found)
        self.assertIn("use_backend a if { req_ssl_sni x }: not for those of tcp-request", look)

    def test_accepted_before(self) -> None:
        """Who is accepted is not asked by what rejects later."""
        self.assertEqual(
            routes(
                "tcp-request content accept if HTTP",
                "tcp-request content reject if { req_ssl_hello_type 1 }",
                "tcp-request content accept",
                "default_backend b",
            ),
            [(["http"], "b"), (["tls"], "close")],
        )
        self.assertEqual(
            routes(
                "tcp-request content accept",
                "tcp-request content reject if HTTP",
                "default_backend b",
            ),
            [],
        )

    def test_lost_rejection(self) -> None:
        """That a client now comes in who was kept out is told."""
        for line in (
            "tcp-request content reject if { nbsrv(x) lt 2 }",
            "tcp-request content reject if { req.payload(0,9) -m reg a$ }",
            "tcp-request connection reject if { nbsrv(x) lt 2 }",
            "tcp-request connection reject if HTTP",
        ):
            found = frontend(line, "default_backend a")
            self.assertIn("the clients that it keeps out come in", looks(found)[0], line)

    def networks(self, *lines: str) -> tuple[str, ...]:
        text = frontend(*lines).text
        return tuple(line for line in text.splitlines() if line.startswith(("allow", "deny")))

    def test_connection_rules(self) -> None:
        """Rules for addresses become ``allow`` and ``deny``."""
        deny = "tcp-request connection reject if { src 10.0.0.0/8 }"
        self.assertEqual(self.networks(deny), ("deny = 10.0.0.0/8",))
        only = "tcp-request connection reject if !{ src 10.0.0.0/8 }"
        self.assertEqual(self.networks(only), ("allow = 10.0.0.0/8",))
        both = "tcp-request connection accept if { src 10.0.0.0/8 }"
        reject = "tcp-request connection reject"
        self.assertEqual(self.networks(both, reject), ("allow = 10.0.0.0/8",))
        self.assertEqual(self.networks(reject + " if !FALSE"), _NOBODY)
        self.assertEqual(self.networks("tcp-request connection accept", deny), ())
        self.assertEqual(self.networks(only, only.replace("10.", "11.")), _NOBODY)
        self.assertEqual(
            self.networks(only, only.replace("10.0.0.0/8", "10.1.0.0/16")), ("allow = 10.1.0.0/16",)
        )
        either = "tcp-request connection reject if !{ src 10.0.0.1 } or !{ src 10.0.0.2 }"
        self.assertEqual(self.networks(either), _NOBODY)

    def test_layers(self) -> None:
        """What is accepted by the rules of one layer is still asked by those of the next."""
        accept = "tcp-request connection accept if { src 10.0.0.0/8 }"
        self.assertEqual(self.networks(accept, "tcp-request session reject"), _NOBODY)

    def test_exceptions(self) -> None:
        """A network that is accepted before a wider one is rejected stays in."""
        found = frontend(
            "tcp-request connection accept if { src 10.0.0.0/9 }",
            "tcp-request connection reject if { src 10.0.0.0/8 }",
        )
        listener = rules_of(found).listeners[0]
        for address, is_in in (("10.1.1.1", True), ("10.200.1.1", False), ("11.1.1.1", True)):
            self.assertEqual(listener.clients.serves(ip_address(address)), is_in, address)

    def test_content_rules_of_networks(self) -> None:
        """What depends on the address alone keeps clients out before they say anything, as ``allow`` and ``deny``."""
        only = "tcp-request content reject if !{ src 10.0.0.0/8 }"
        for lines, expected in (
            ((only,), ("allow = 10.0.0.0/8",)),
            (("tcp-request content reject unless { src 10.0.0.0/8 }",), ("allow = 10.0.0.0/8",)),
            (("tcp-request content reject if { src 10.0.0.0/8 }",), ("deny = 10.0.0.0/8",)),
            (("tcp-request content reject if { req_ssl_ver 3.0 }", only), ("allow = 10.0.0.0/8",)),
            (
                ("tcp-request content accept if { src ::1 }", "tcp-request content reject"),
                ("allow = ::1/128",),
            ),
            (
                ("tcp-request content accept if { src 10.0.0.0/8 } HTTP", only),
                ("allow = 10.0.0.0/8",),
            ),
        ):
            text = (*lines, "use_backend a if HTTP", "default_backend b")
            self.assertEqual(self.networks(*text), expected, lines)
            listener = rules_of(frontend(*text)).listeners[0]
            self.assertEqual(
                (str(silent_of(listener)), str(listener.default)), (str(listener.default),) * 2
            )

    def test_proxied(self) -> None:
        """Rules about the proxy's own address have no counterpart where its header counts."""
        only = "tcp-request connection reject if !{ src 10.0.0.0/8 }"
        found = frontend(only, bind="bind 127.0.0.1:1 accept-proxy")
        self.assertIn("it asks for the proxy's address", looks(found)[0])
        self.assertNotIn("\nallow", found.text)

    def test_rules_of_backends(self) -> None:
        """Whom a backend rejects has a route that closes, before the one that leads there."""
        found = converted(
            """
            frontend f
                bind 127.0.0.1:1
                use_backend a if { req_ssl_hello_type 1 }
                default_backend b
            backend a
                tcp-request inspect-delay 2s
                tcp-request content reject if { req_ssl_sni x }
                tcp-request content reject if !{ src 10.0.0.0/8 }
                server s 127.0.0.1:9
            backend b
                server s 127.0.0.1:2
            """
        )
        self.assertEqual((looks(found), rules_of(found).listeners[0].detect_timeout), ([], 2))
        self.assertIn("match = tls sni=x\nbackend = close\n", found.text)
        self.assertIn("match = tls\nnot_from = 10.0.0.0/8\nbackend = close\n", found.text)

    def test_rules_of_the_only_backend(self) -> None:
        """Where all go to one backend, whom it keeps out is not let in."""
        found = converted(
            """
            frontend f
                bind 127.0.0.1:1
                default_backend a
            backend a
                tcp-request content reject if !{ src 10.0.0.0/8 }
                server s 127.0.0.1:9
            """
        )
        self.assertIn("\nallow = 10.0.0.0/8\n", found.text)
        self.assertEqual(found.warnings, ())

    def test_expect_proxy(self) -> None:
        """Where a header is expected from some networks only, so says the listener."""
        found = frontend("tcp-request connection expect-proxy layer4 if { src 10.0.0.0/8 }")
        self.assertIn("\naccept_proxy_from = 10.0.0.0/8\n", found.text)

    def test_expect_proxy_of_all(self) -> None:
        """Where everybody sends a header, that is everybody."""
        found = frontend("tcp-request connection expect-proxy layer4")
        self.assertIn("\naccept_proxy_from = 0.0.0.0/0\n    ::/0\n    unix\n", found.text)

    def test_expect_proxy_of_others(self) -> None:
        """A header of all but some is to be looked at."""
        found = frontend("tcp-request connection expect-proxy layer4 if !{ src 10.0.0.0/8 }")
        self.assertIn("accept_proxy_from has a list of networks only", looks(found)[0])
        self.assertNotIn("\naccept_proxy_from", found.text)

    def test_holes(self) -> None:
        """What is let in may have a part of a network taken out of it, and all of another."""
        found = frontend(
            "tcp-request connection accept if { src ::1 }",
            "tcp-request connection accept if { src 10.0.0.0/30 192.0.2.1 } !{ src 10.0.0.1 192.0.2.0/24 }",
            "tcp-request connection reject",
        )
        listener = rules_of(found).listeners[0]
        for address, is_in in (
            ("::1", True),
            ("10.0.0.0", True),
            ("10.0.0.1", False),
            ("10.0.0.3", True),
            ("192.0.2.1", False),
            ("127.0.0.1", False),
        ):
            self.assertEqual(listener.clients.serves(ip_address(address)), is_in, address)

    def test_nothing_is_called_lost(self) -> None:
        """What is written is not said to be left out, however many accept it."""
        lines = (
            "tcp-request content accept if { req_ssl_hello_type 1 }",
            "tcp-request content accept if HTTP",
            "tcp-request content reject",
            "use_backend a if HTTP",
            "default_backend b",
        )
        self.assertEqual(routes(*lines), [(["tls"], "b"), (["http"], "a")])
        self.assertEqual(frontend(*lines).warnings, ())

    def test_all_lines_lost(self) -> None:
        """Where rules cannot be had together, each of them is told."""
        many = " ".join(f"10.{n // 100}.{n % 100}.1" for n in range(300))
        lines = (
            f"tcp-request connection accept if {{ src {many} }}",
            "tcp-request connection reject if { src 10.0.0.0/8 }",
        )
        found = frontend(*lines, "default_backend a")
        self.assertEqual(len(looks(found)), 2)
        for look in looks(found):
            self.assertIn("the clients that it keeps out come in: would take too many", look)

    def test_under(self) -> None:
        """With several frontends, each route belongs to the listeners of its own."""
        found = converted(
            "frontend f\n    bind 127.0.0.1:1\n    bind 127.0.0.1:2 accept-proxy\n    use_backend a if HTTP\n"
            f"frontend g\n    bind 127.0.0.1:3\n    use_backend b if HTTP\n{_BACKENDS}"
        )
        self.assertEqual([route.under for route in rules_of(found).routes], [("f", "f-2"), ("g",)])


class FileTests(SynchronousTestCase):
    """Whole files."""

    def test_global(self) -> None:
        """The limit of connections is kept, the rest has no counterpart."""
        found = converted("global\n    maxconn 9\n    daemon\nlisten x\n    bind :1\n")
        self.assertEqual(rules_of(found).settings.max_connections, 9)
        waits = "HAProxy lets further clients wait, and txmux closes them"
        self.assertEqual(
            found.warnings,
            (
                f"x.cfg:2: maxconn 9: {waits}",
                "x.cfg:3: daemon: has no counterpart; see 'Run as a service'",
            ),
        )

    def test_listener_keys(self) -> None:
        """So are the limits of a frontend."""
        found = frontend("maxconn 7", "backlog 8")
        listener = rules_of(found).listeners[0]
        self.assertIn("txmux closes them", found.warnings[0])
        self.assertEqual((listener.max_connections, listener.backlog), (7, 8))

    def test_backend_of_another_mode(self) -> None:
        """A backend that a frontend leads to is converted, whatever its mode; another one is left out."""
        found = converted(
            "frontend f\n    bind :1\n    default_backend x\n"
            "backend x\n    mode http\n    server s 127.0.0.1:9\nbackend y\n    mode http\n"
        )
        self.assertEqual(list(rules_of(found).backends), ["x"])
        self.assertEqual(found.warnings, ("x.cfg:7: backend y: is left out; mode http",))

    def test_other_modes(self) -> None:
        """What speaks HTTP, or is disabled, is left out."""
        found = converted(
            "listen x\n    bind :1\nlisten y\n    mode http\nlisten z\n    disabled\n"
        )
        self.assertEqual(
            found.warnings,
            (
                "x.cfg:3: LOOK: listen y: is left out; mode http, which txmux cannot serve",
                "x.cfg:5: listen z: is left out; it is disabled",
            ),
        )
        error = self.assertRaises(
            ConvertError, converted, "defaults\n    mode http\nlisten x\n    bind :1"
        )
        self.assertIn("no frontend or listen in mode tcp", str(error))

    def test_defaults(self) -> None:
        """A proxy has the defaults above it, or those it names."""
        found = converted(
            "defaults one\n    maxconn 1\ndefaults two from one\n    backlog 2\n"
            "listen x from one\n    bind :1\nlisten y\n    bind :2\n"
        )
        x, y = rules_of(found).listeners
        self.assertEqual(
            (x.max_connections, x.backlog, y.max_connections, y.backlog), (1, 1024, 1, 2)
        )

    def test_rest(self) -> None:
        """Whatever else there is has no counterpart, and is told once."""
        found = converted(
            "defaults\n    log global\n    option splice-auto\nlisten x\n    bind :1\n    stick on src\nlisten y\n    bind :2\n"
            "peers p\n    peer a 127.0.0.1:1\n"
        )
        self.assertEqual(
            [warning.partition(": ")[0] for warning in found.warnings],
            ["x.cfg:2", "x.cfg:6", "x.cfg:9"],
        )
        self.assertEqual(len(looks(found)), 1)

    def test_what_decides(self) -> None:
        """What else decides who is served, and by whom, is to be looked at; what only tells is a warning."""
        for line in (
            "stick match src",
            "use-server s if HTTP",
            "server s",
            "server-template s 1-3 127.0.0.1:1",
            "tcp-request content use-service lua.x",
            "tcp-request connection set-src src",
            "tcp-response content reject",
        ):
            found = converted(f"listen x\n    bind :1\n    {line}\n    server t 127.0.0.1:2\n")
            self.assertIn(f"{line}: has no counterpart", looks(found)[0])
        for line in ("tcp-request connection track-sc0 src", "errorfile 503 /x", "log global"):
            found = converted(f"listen x\n    bind :1\n    {line}\n    server t 127.0.0.1:2\n")
            self.assertEqual((len(found.warnings), looks(found)), (1, []))

    def test_listener_left_out(self) -> None:
        """A route of a listener that is left out is left out, too, lest it serve the others."""
        found = converted(
            "frontend f\n    bind 127.0.0.1:1\n    use_backend a if HTTP\n"
            f"frontend g\n    bind fd@3\n    use_backend b if HTTP\n{_BACKENDS}"
        )
        self.assertEqual([route.name for route in rules_of(found).routes], ["a"])
        self.assertIn("# [route b]\n", found.text)
        self.assertTrue(any("it would serve more clients" in one for one in found.warnings))

    def test_words(self) -> None:
        """Words are quoted and escaped as HAProxy has it."""
        for test, line in (
            (r"a\ b", "payload hex=612062"),
            ('"a b"', "payload hex=612062"),
            ("'a b'", "payload hex=612062"),
            (r'"a\"b"', "payload hex=612262"),
            (r"a\x20b", "payload hex=612062"),
            (r"a\nb", "payload hex=610a62"),
            (r"a\#b # comment", "payload hex=612362"),
        ):
            found = frontend(f"acl x req.payload(0,3) -m str {test}", "use_backend a if x")
            self.assertEqual(rules_of(found).routes[0].alternatives[0].text, line)

    def test_taken_back(self) -> None:
        """``no`` takes back what the defaults say, and ``enabled`` that a proxy is out of use."""
        found = converted(
            "defaults\n    option allbackups\n    disabled\n    maxconn 7\n"
            "listen x\n    bind :9\n    enabled\n    no option allbackups\n    no maxconn\n"
            "    server a 127.0.0.1:1\n    server b 127.0.0.1:2 backup\n    server c 127.0.0.1:3 backup\n"
        )
        self.assertIn("\nbalance = first\n", found.text)
        self.assertEqual((found.warnings, "max_connections" in found.text), ((), False))

    def test_disabled_backend(self) -> None:
        """Clients of a backend that is out of use are closed."""
        found = converted(
            "frontend f\n    bind :1\n    default_backend x\nbackend x\n    disabled\n    server a 127.0.0.1:1\n"
        )
        self.assertIn("or it is disabled; these clients are closed", looks(found)[0])
        self.assertNotIn("\ndefault = ", found.text)

    def test_environment(self) -> None:
        """What depends on the environment is not known here."""
        for line in ('acl x req_ssl_sni "${NAME}"', ".if defined(X)", ".endif"):
            found = frontend(line, "use_backend a if HTTP")
            self.assertIn("depends on the environment", looks(found)[0])
            self.assertEqual(len(found.warnings), 1, found.warnings)

    def test_no_section(self) -> None:
        """A line before any section is a clear error."""
        error = self.assertRaises(ConvertError, converted, "bind :1", "haproxy")
        self.assertIn("x.cfg:1: 'bind' stands before the first section", str(error))

    def test_measured_setup(self) -> None:
        """A file that tells three protocols apart by their first bytes."""
        found = converted(
            """
            global
                nbthread 1
            defaults
                mode tcp
                timeout connect 5s
                timeout client 60s
                timeout server 60s
            frontend port
                bind 127.0.0.1:8443
                option splice-auto
                tcp-request inspect-delay 5s
                acl ssh req.payload(0,3) -m bin 535348
                acl web req.payload(0,3) -m bin 474554 504f53 484541
                acl cache req.payload(0,1) -m bin 2a
                tcp-request content accept if ssh
                tcp-request content accept if web
                tcp-request content accept if cache
                tcp-request content accept if { req.len gt 0 }
                use_backend h if web
                use_backend r if cache
                default_backend i
            backend h
                server s 127.0.0.1:80
            backend r
                server s 127.0.0.1:6379
            backend i
                server s 127.0.0.1:5201
            """
        )
        rules = rules_of(found)
        self.assertEqual([route.name for route in rules.routes], ["h", "r"])
        self.assertEqual(len(found.warnings), 1)

    def test_shipped_examples(self) -> None:
        """Of the examples that come with HAProxy, those for TCP become rules, and the others a clear error."""
        require_program("haproxy")
        folder = Path("/usr/share/doc/haproxy/examples")
        files = [*folder.glob("*.cfg"), Path("/etc/haproxy/haproxy.cfg")]
        if not folder.exists():
            raise SkipTest("the package has no examples")
        made = set()
        for file in files:
            if not file.exists():
                continue
            try:
                converted(file.read_bytes(), name=file.name)
                made.add(file.name)
            except ConvertError as error:
                self.assertIn("no frontend or listen in mode tcp", str(error))
        self.assertEqual(made, {"socks4.cfg", "transparent_proxy.cfg"})

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Whatever is in the file, nothing comes but the clear error."""
        attempt(f"listen x\n bind :1\n {text}", "haproxy")
        attempt(text, "haproxy")

    @given(
        st.lists(
            st.sampled_from(
                "\n,listen,frontend,backend,defaults,global,x,bind,:1,127.0.0.1:2,ssl,server,use_backend,default_backend,if,unless,or,!,{,},acl,HTTP,src,10.0.0.0/8,req.payload(0\\,2),-m,-i,reg,bin,1603,^a$,req_ssl_sni,req.ssl_ver,req.len,gt,0,tcp-request,connection,content,session,reject,accept,inspect-delay,expect-proxy,mode,tcp,timeout,client,check,source,usesrc,weight,send-proxy,option,httpchk,balance,retries,maxconn,from,disabled,enabled,no,silent-drop,backup,port,8008,check-ssl,check-sni,addr,:+1,0.0.0.0:1,inter,rise,fall,5,0,tcp-check,http-check,expect,send,status,200-399,rstatus,string,meth,uri,hdr,on-marked-down,default-server,stick,use-server,${X},.if".replace(
                    "\\,", ";"
                ).split(",")
            )
        )
    )
    def test_any_words(self, words: list[str]) -> None:
        """The same for texts that are nearly right."""
        text = " ".join(words).replace(";", ",")
        for start in (
            "",
            "listen x\n bind :1\n ",
            "listen x\n bind :1\n server a 127.0.0.1:9\n tcp-request ",
        ):
            attempt(start + text, "haproxy")
