import base64
import json
import os
import re
import stat

from tests.features.ech.client import HIDDEN, MadeKey, Sealer, inner
from tests.support.kit import CommandTestCase, authority, change_constants
from tests.wire.hello_builder import records, server_name, versions
from txmux.features.ech import forwarding
from txmux.features.ech.hello import read_configs
from txmux.features.ech.keys import read_key_file

_RULES = """\
[listen public]
endpoint = :443
ech_keys = keys

[route hidden]
match   = tls sni=hidden.example
backend = 127.0.0.1:1

[route public]
match   = tls sni=public.example
backend = 127.0.0.1:2

[route ends]
match   = tls sni=ends.example
terminate_tls = good.pem
backend = 127.0.0.1:3
"""


class EchTest(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.keys = self.folder / "keys"
        self.keys.mkdir()
        self.made = MadeKey()
        self.made.write(self.keys / "a.pem").chmod(0o600)
        authority().issue("ends.example").write(self.folder / "good.pem", key=True)
        self.rules = self.write("rules.ini", _RULES)

    def test_new(self) -> None:
        path = self.keys / "b.pem"
        out = self.told(0, self.run_main("ech", "new", "Other.Example.", "--output", path))
        file = read_key_file(path)
        self.assertEqual(out, f'NAME. 300 IN HTTPS 1 . alpn="h2,http/1.1" ech="{file.configs}"\n')
        (config,) = read_configs(base64.b64decode(file.configs))
        self.assertEqual((config.public_name, config.suites), ("other.example", {(1, 1), (1, 3)}))
        self.assertNotEqual(config.id, 7)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.keys.chmod(0o2700)  # for its group
        self.run_main("ech", "new", "a.example", "--output", of_group := self.keys / "c.pem")
        self.assertEqual(stat.S_IMODE(of_group.stat().st_mode), 0o640)
        err = self.told(1, self.run_main("ech", "new", "a.example", "--output", path))
        self.assertIn("name a new file", err)
        out = self.told(0, self.run_main("ech", "new", "public.example"))
        self.assertIn("BEGIN PRIVATE KEY", out)
        self.assertTrue(out.startswith("# NAME. 300 IN HTTPS 1 . "))
        self.assertEqual(len(read_key_file(self.write("new.pem", out)).keys), 1)
        err = self.told(2, self.run_main("ech", "new", "public.example", "--json"))
        self.assertIn("--json is only for show", err)
        for name in ("a..example", "*.example", "x" * 70, "1.2.3.4", ""):
            code, _, err = self.run_main("ech", "new", name)
            self.assertEqual((name, code), (name, 1))
            self.assertIn("is not the name of a host", err)

    def test_show(self) -> None:
        new = MadeKey(9, "new.example")
        os.utime(self.keys / "a.pem", (1, 1))
        new.write(self.keys / "b.ech")
        out = self.told(0, self.run_main("ech", "show", self.rules))
        rows = [line.split() for line in out.splitlines()]
        self.assertEqual(rows[1][:3] + rows[1][-2:-1], ["public", "9", "new.example", "published"])
        self.assertEqual(rows[2][:3] + rows[2][-2:-1], ["public", "7", "public.example", "opens"])
        self.assertIn(base64.b64encode(new.configs).decode(), out)
        code, shown, _ = self.run_main("ech", "show", self.rules, "--json")
        (listener,) = json.loads(shown)
        keys = [(key["ids"], key["public_names"], key["state"]) for key in listener.pop("keys")]
        record = out.splitlines()[-1].removeprefix("public: ")
        self.assertEqual((code, listener), (0, {"listener": "public", "record": record}))
        expected = [([9], ["new.example"], "published"), ([7], ["public.example"], "opens")]
        self.assertEqual(keys, expected)
        code, of_keys, _ = self.run_main("ech", "show", self.keys)
        out = out.replace("\npublic  ", "\n-       ").replace("\npublic:", "\n-:")
        self.assertEqual((code, of_keys), (0, out))
        MadeKey(9).write(self.keys / "a.pem")
        _, out, _ = self.run_main("ech", "show", self.keys)
        self.assertEqual(re.findall(r"UTC +(.+?) +/", out), ["published", "opens nothing"])
        two = self.write("two.ini", f"[txmux]\ninclude = units/*.ini\n{_RULES}")
        unit = "[listen other]\nendpoint = :8444\nech_keys = none\n"
        (self.folder / "units").mkdir()
        self.write("units/other.ini", unit)
        out = self.told(0, self.run_main("ech", "show", two))
        self.assertIn("\nother: cannot read", out)
        self.assertIn("\npublic: NAME. ", out)
        plain = self.write("plain.ini", _RULES.replace("ech_keys = keys\n", ""))
        err = self.told(1, self.run_main("ech", "show", plain))
        self.assertIn("no [listen] has ech_keys; add it", err)

    def explained(self, data: bytes, *options: object) -> str:
        hello = self.write("hello", data)
        words = map(str, ("--file", hello, *(options or ("--ech-keys", self.keys))))
        return self.told(0, self.run_main("explain", self.rules, *words))

    def test_commands_know_hidden_names(self) -> None:
        hello = records(Sealer(self.made).hello(inner()))
        out = self.explained(hello)
        self.assertIn(f"decision  at byte {len(hello)}: route hidden, to 127.0.0.1:1\n", out)
        self.assertIn(f"ech=inner outer_sni=public.example sni={HIDDEN}", out)
        out = self.explained(hello, "--ech-keys", MadeKey().write(self.folder / "other.pem"))
        self.assertIn("route public", out)
        self.assertIn("ech=outer sni=public.example", out)
        self.assertIn("route public", self.explained(hello, "--listener", "public"))
        ends = records(Sealer(self.made).hello(inner(name="ends.example")))
        for version, taker in ((0, "ends"), (1 << 32, "public")):
            change_constants(self, forwarding, _CONFIRMS=version)
            self.assertIn(f": route {taker}", self.explained(ends))
        hello = records(Sealer(self.made).hello(inner(server_name(HIDDEN), versions(0x0304))))
        out = self.explained(hello)
        self.assertIn(f"decision  at byte {len(hello)}: tls-failed, close\n", out)
        self.assertIn("tls_error=the hidden hello is not legal", out)
        change_constants(self, forwarding, _CONFIRMS=0)
        self.assertEqual(self.checked(), [])
        change_constants(self, forwarding, _CONFIRMS=1 << 32)
        (told,) = self.checked()
        self.assertIn("hellos in which [listen public] finds such a name hidden go by", told)
        MadeKey(8, "lost.example").write(self.keys / "b.pem").chmod(0o644)
        self.keys.chmod(0o755)
        self.keys.parent.chmod(0o755)
        readable, lost, _ = self.checked()
        self.assertIn("every user of this machine can read", readable)
        self.assertIn("no route takes the public name 'lost.example'", lost)
        MadeKey(7).write(self.keys / "b.pem").chmod(0o600)
        os.utime(self.keys / "a.pem", (1, 1))
        covered, _ = self.checked()
        why = "a.pem' opens nothing, since the newer '.*b.pem' has .* number, 7;"
        self.assertRegex(covered, why)
        (self.keys / "b.pem").write_text("nonsense")
        (wrong,) = self.checked()
        self.assertIn("b.pem': no private key, where each file has one", wrong)

    def checked(self) -> list[str]:
        _, out, _ = self.run_main("check", self.rules)
        lines = [line for line in out.splitlines() if "ech" in line or "hid" in line]
        return [line.partition("] ")[2] for line in lines]
