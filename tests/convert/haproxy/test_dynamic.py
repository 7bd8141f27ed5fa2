from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks
from tests.convert.haproxy.pieces import backend, frontend, routes


class NameTests(SynchronousTestCase):
    def test_maps_by_each_method(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "map").write_text("# names\n.example   a\nx.example  b\n\ny.example  gone\n")
        for words, expected in (
            ("map({})", [(["tls sni=.example"], "a"), (["tls sni=x.example"], "b")]),
            ("map_str({})", [(["tls sni=.example"], "a"), (["tls sni=x.example"], "b")]),
            ("lower,map_end({},a)", [(["tls sni=*.example"], "a")]),
        ):
            line = f"use_backend %[req.ssl_sni,{words.format(folder.absolute() / 'map')}]"
            self.assertEqual(routes(line, "default_backend b")[0], expected[0], words)
            output = frontend(line)
            self.assertIn("map:1: is written into the rules as it is now", output.warnings[0])
            self.assertEqual("match = tls sni=*\nbackend = a\n" in output.text, ",a" in words)

    def test_large_map_is_a_route_for_each_backend(self) -> None:
        file = Path(self.mktemp())
        names = [(f"n{number}.example", "ab"[number % 2]) for number in range(3000)]
        file.write_text("".join(f"{name} {value}\n" for name, value in names))
        output = routes(f"use_backend %[req.ssl_sni,map({file.absolute()})]")
        self.assertEqual([(len(lines), to) for lines, to in output], [(1, "a"), (1, "b")])
        self.assertEqual(output[1][0][0].count(","), 1499)


class ServerTests(SynchronousTestCase):
    def test_nbsrv_is_a_fallback(self) -> None:
        for test in ("if { nbsrv(a) lt 1 }", "if { nbsrv(a) eq 0 }", "if down"):
            text = (
                f"frontend f\n    bind :1\n    acl down nbsrv(a) le 0\n    use_backend b {test}\n    default_backend a\n"
                "backend a\n    server s 127.0.0.1:9 check\nbackend b\n    server s 127.0.0.1:8\n"
            )
            output = converted(text)
            self.assertIn("\nfallback = b\n", output.text)
            self.assertEqual(output.warnings, ())
            for change in ("default_backend b", "use_backend b if HTTP\n    default_backend a"):
                other = converted(text.replace("default_backend a", change))
                self.assertIn("nbsrv(a) has no counterpart", looks(other)[0])
        self.assertIn("has no counterpart", looks(converted(text.replace(" check", "")))[0])

    def test_what_haproxy_refuses_is_no_server_here(self) -> None:
        for server in ("weight 257", "weight 999", "weight -1", "weight x"):
            (look,) = looks(backend(server=f"server s 127.0.0.1:1 {server}"))
            self.assertIn("HAProxy refuses it, too; a weight is from 0 to 256", look)
        for template in ("t 3", "t 0 127.0.0.1:1", "t 3-1 127.0.0.1:1", "t x 127.0.0.1:1"):
            found = looks(backend(f"server-template {template}"))
            self.assertIn("HAProxy refuses it, too: ", found[0])
            self.assertEqual(len(found), 1)
        for fine in ("server-template t 0-3 127.0.0.1:2", "server t 127.0.0.1:2 weight 256"):
            self.assertEqual(looks(backend(fine)), [])


class LimitTests(SynchronousTestCase):
    def limits(self, *lines: str) -> list[str]:
        text = frontend(
            "stick-table type ip size 100k expire 30s store conn_cur,conn_rate(10s)",
            *lines,
            "default_backend a",
        ).text
        return [line for line in text.splitlines() if "_per_source" in line]

    def test_limits_depend_on_the_order_of_counting(self) -> None:
        track = "tcp-request connection track-sc0 src"
        for lines, expected in (
            ((track, "tcp-request connection reject if { sc0_conn_cur gt 5 }"),
             ["max_connections_per_source = 5"]),
            ((track, "tcp-request content reject if { src_conn_cur ge 5 }"),
             ["max_connections_per_source = 4"]),
            (("tcp-request connection reject if { src_conn_cur ge 5 }", track),
             ["max_connections_per_source = 5"]),
            ((track, "tcp-request connection reject if { sc_conn_rate(0) gt 20 }"),
             ["connection_rate_per_source = 2/s burst=20"]),
            (
                ("acl abuse src_conn_rate gt 3", "acl abuse src_conn_cur ge 2", track,
                 "tcp-request connection silent-drop if abuse"),
                ["connection_rate_per_source = 18/m burst=3", "max_connections_per_source = 1"],
            ),
        ):  # fmt: skip
            self.assertEqual(self.limits(*lines), expected, lines)

    def test_other_limits_are_a_look(self) -> None:
        track = "tcp-request connection track-sc0 src"
        for lines in (
            ("tcp-request connection reject if { src_conn_cur ge 5 }",),
            ("tcp-request x track-sc0 src", "tcp-request content reject if { src_conn_cur ge 5 }"),
            (track, "tcp-request connection reject if { src_conn_cur ge 5 } { src ::1 }"),
            (track, "tcp-request connection reject unless { src_conn_cur lt 5 }"),
            (track, "tcp-request connection reject if { sc0_conn_cnt gt 5 }"),
            (f"{track} if FALSE", "tcp-request connection reject if { sc0_conn_cur gt 5 }"),
        ):
            self.assertEqual(self.limits(*lines), [], lines)
            self.assertTrue(looks(frontend(*lines, "default_backend a")), lines)
