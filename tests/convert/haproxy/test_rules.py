from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks, rules_of
from tests.convert.haproxy.pieces import frontend, matches, routes


class AclTests(SynchronousTestCase):
    def test_matchers(self) -> None:
        for test, lines in (
            # Payload of hex digits or text.
            ("req.payload(0,3) -m bin 474554 504f53", ["payload hex=474554", "payload hex=504f53"]),
            ("req.payload(0,3) 474554", ["payload hex=474554"]),
            ("req.payload(0,0),mqtt_is_valid", ["mqtt"]),
            ("payload(4,2) -m bin ffFE", ["payload offset=4 hex=fffe"]),
            ("req.payload(0,4) -m str SSH-", ["payload hex=5353482d"]),
            ("req.payload(0,9) -m beg SSH-", [r"regex pattern=SSH\-(?s:.{5}) within=9"]),
            ("req.payload(0,0) -m beg SSH-", ["payload hex=5353482d"]),
            ("req.payload(0,9) -m end ab", ["payload offset=7 hex=6162"]),
            ("req.payload(0,2),hex -m str 4745", ["payload hex=4745"]),
            ("req.payload(0,4) -m beg -i get", ["regex pattern=(?i:get)(?s:.{1}) within=4"]),
            ("req.payload(0,4),lower -m beg get", ["regex pattern=(?i:get)(?s:.{1}) within=4"]),
            ("req.payload(2,4) -m found", ["regex pattern=(?s:.{2})(?s:.{4}) within=6"]),
            ("req.payload(0,64) -m sub jabber", ["regex pattern=(?s:.*)(?:jabber) within=64"]),
            ("req.payload(0,64) -m reg ^a|b", ["regex pattern=(?s:.*)(?:^a|b) within=64"]),
            ("req.payload(0,0) -m reg -i ^a\\.", ["regex pattern=(?i:^a\\.) within=256"]),
            ("req.payload(4,9) -m reg ^a", ["regex pattern=(?s:.{4})a within=13"]),
            # Parts of a client hello.
            ("req_ssl_hello_type 1", ["tls"]), ("req.ssl_hello_type 1", ["tls"]),
            ("req_ssl_ver gt 3", ["tls version=1.0,1.1,1.2,1.3"]), ("req.ssl_ver ge 3", ["tls"]),
            ("req.ssl_ver 3.1", ["tls version=1.0"]), ("req.ssl_ver 3:3.1", ["tls version=ssl3,1.0"]),
            ("req.ssl_ver le 3.0", ["tls version=ssl3"]),
            ("req.ssl_ver lt 3.2", ["tls version=ssl3,1.0"]),
            ("req.ssl_ver 3.3:", ["tls version=1.2,1.3"]),
            ("req.ssl_sni a.example b.example", ["tls sni=a.example,b.example"]),
            ("req_ssl_sni -i a.example", ["tls sni=a.example"]),
            ("req.ssl_sni,lower -m str a.example", ["tls sni=a.example"]),
            ("req.ssl_sni -m end .example", ["tls sni=*.example"]),
            ("req.ssl_sni -m beg www.", ["tls sni=www.*"]), ("req.ssl_sni -m sub x", ["tls sni=*x*"]),
            ("req.ssl_sni -m dom x", ["tls sni=x,*.x,x.*,*.x.*"]),
            ("req.ssl_sni -m found", ["tls sni=*"]),
            ("req.ssl_sni -m reg ^a\\.b$", ["tls sni=~^a\\.b"]),
            ("req.ssl_sni -m reg -i ^a$|b", ["tls sni=~^a", "tls sni=~(?s:.*)(?:b)(?s:.*)"]),
            ("req.ssl_alpn h2 -m", ["tls alpn=h2,-m"]),
            ("req.ssl_alpn -i -- h2", ["tls alpn=~(?i:h2)"]),
            ("req.ssl_alpn -m sub xmpp", ["tls alpn=*xmpp*"]),
            # Lengths, HTTP and RDP.
            ("req.len gt 0", ["any"]), ("req_len ge 3", ["regex pattern=(?s:.{3}) within=3"]),
            ("req.proto_http", ["http"]), ("req.rdp_cookie_cnt gt 0", ["rdp cookie=*"]),
            ("hdr(host) -i x.example", ["http host=x.example"]),
            ("req.hdr(Host) -m beg x", ["http host=x*"]), ("path_beg /a /b", ["http path=/a*,/b*"]),
        ):  # fmt: skip
            self.assertEqual(matches(f"{{ {test} }}"), lines, test)
        for acl, line in (
            ("HTTP", "http"), ("METH_GET", "http method=GET,HEAD"), ("REQ_CONTENT", "any"),
            ("RDP_COOKIE", "rdp cookie=*"),
        ):  # fmt: skip
            self.assertEqual(matches(acl), [line], acl)

    def test_tests_without_counterpart_lead_nowhere(self) -> None:
        for test in (
            "nbsrv(x) lt 2", "req.ssl_sni -f /names", "req.ssl_sni,field(1,.) -m str x",
            "req.ssl_sni -m len 3", "req.ssl_sni *.example", "req.ssl_sni -m reg (?!a)b",
            "req.ssl_ver x", "req.len 0:3", "req.len lt 5", "req.payload(0,0) -m bin 16",
            "req.payload(x) -m bin 16", "req.payload(0,1) -m bin 1", "req.payload(0,1) -m dom x",
            "req.payload(0,1),base64 -m str x", "req.payload(0,1),hex -m sub 16",
            "req.payload(4,9) -m reg a|^b", "req.payload(0,9) -m reg a$", "src no-network",
            "req.ssl_sni -f /no/such", "req.ssl_sni -f no\0name", "src -M -f /networks", "src",
            "src,in_table(t)", "src,ipmask(24) 10.0.0.0", "src -m found", "req.ssl_sni",
            "req.ssl_hello_type ge 0", "req.proto_http 0", "req.rdp_cookie_cnt eq 0",
            "req.payload(0,1)", "req.len,div(2) 1", "hdr(cookie) x", "(",
        ):  # fmt: skip
            output = frontend(f"use_backend a if {{ {test} }}")
            self.assertEqual(rules_of(output).routes, (), test)
            self.assertTrue(
                any(line.startswith("line 3: use_backend a if {") for line in looks(output)), test
            )

    def test_never_true(self) -> None:
        for test in (
            "FALSE", "{ always_false }", "{ req.ssl_hello_type 2 }", "{ req.ssl_ver 9 }",
            "{ req.payload(0,1) -m bin 1616 }", "{ req.payload(0,3) -m str ab }",
            "{ src 10.0.0.0/8 } { src 192.0.2.1 }",
        ):  # fmt: skip
            self.assertEqual(routes(f"use_backend a if {test}"), [], test)


class ConditionTests(SynchronousTestCase):
    def test_and_joins_options_and_keeps_longer_bytes(self) -> None:
        for test, lines in (
            ("{ req_ssl_hello_type 1 } { req_ssl_sni a } { req.ssl_alpn h2 } { req_ssl_ver 3.1 }",
             ["tls sni=a alpn=h2 version=1.0"]),
            ("HTTP HTTP", ["http"]), ("TRUE HTTP", ["http"]), ("{ req.len gt 0 } HTTP", ["http"]),
            ("{ req.payload(0,1) 16 } { req.payload(0,2) 1603 }", ["payload hex=1603"]),
            ("{ req.payload(0,2) 1603 } { req.payload(0,1) 16 }", ["payload hex=1603"]),
        ):  # fmt: skip
            self.assertEqual(matches(test), lines)
        different = "{ req.payload(0,1) 16 } { req.payload(0,1) 17 }"
        self.assertEqual(routes(f"use_backend a if {different}"), [])

    def test_common_pattern_of_two_tests(self) -> None:
        end, start = "{ req_ssl_sni -m end .b.example }", "{ req_ssl_sni -m beg a. }"
        for other, expected in (
            ("{ req_ssl_sni x.b.example }", ["tls sni=x.b.example"]),
            ("{ req_ssl_sni -m end .c.b.example }", ["tls sni=*.c.b.example"]),
            (start, ["tls sni=a.*.b.example,a.b.example"]),
        ):
            self.assertEqual(matches(f"{end} {other}"), expected)
        self.assertEqual(routes(f"use_backend a if {end} {{ req_ssl_sni -m end .z }}"), [])
        output = frontend(f"use_backend a if {end} {{ req_ssl_sni -m reg ^a }}")
        self.assertIn("a line of match has one matcher", looks(output)[0])

    def test_two_matchers_at_once(self) -> None:
        many = " or ".join(f"{{ req.payload(0,1) {n:02x} }}" for n in range(101))
        for test in (
            "HTTP { req.payload(0,3) 474554 }", "{ req.payload(0,1) 16 } { req.payload(4,1) 17 }",
            "x", "", "HTTP or",
        ):  # fmt: skip
            output = frontend(f"use_backend a if {test}")
            self.assertEqual(rules_of(output).routes, (), test)
            self.assertIn("is left out: ", looks(output)[0])
        lines = [f"acl x {test[2:-2]}" for test in many.split(" or ")]
        output = frontend(*lines, *(n.replace(" x ", " y ") for n in lines), "use_backend a if x y")
        self.assertIn("too many", looks(output)[0])

    def test_two_thousand_alternatives(self) -> None:
        names = [f"h{number}.example.com" for number in range(2000)]
        tests = [f"req.ssl_sni {name}" for name in names]
        either = " || ".join(f"{{ {test} }}" for test in tests)
        for lines in (
            [f"use_backend a if {either}"],
            [*(f"acl x {test}" for test in tests), "use_backend a if x"],
            [
                *(f"acl x {test}" for test in tests),
                "tcp-request content reject unless x",
                "use_backend a if x",
            ],
            [f"use_backend a if {{ {test} }}" for test in tests],
        ):
            output = frontend(*lines)
            self.assertEqual(looks(output), [])
            routes = rules_of(output).routes
            taken = [line.text for route in routes for line in route.alternatives]
            self.assertEqual(taken, [f"tls sni={name}" for name in names], lines[0][:40])
