from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks
from tests.convert.haproxy.pieces import frontend, routes


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

    def test_two_thousand_alternatives(self) -> None:
        names = [f"h{number}.example.com" for number in range(2000)]
        tests = [f"req.ssl_sni {name}" for name in names]
        either = " || ".join(f"{{ {test} }}" for test in tests)
        acls = [f"acl x {test}" for test in tests]
        for lines in (
            [f"use_backend a if {either}"],
            [*acls, "use_backend a if x"],
            [*acls, "tcp-request content reject unless x", "use_backend a if x"],
            [f"use_backend a if {{ {test} }}" for test in tests],
        ):
            self.assertEqual(looks(frontend(*lines)), [])
            taken = [line for alternatives, _ in routes(*lines) for line in alternatives]
            self.assertEqual(taken, [f"tls sni={name}" for name in names], lines[0][:40])

    def test_file_with_a_name_that_no_file_has(self) -> None:
        (look,) = looks(frontend("use_backend a if { req.ssl_sni -f no\0name }"))
        self.assertTrue(look.startswith("line 3: use_backend a if {"), look)
