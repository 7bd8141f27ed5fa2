import os
from unittest import SkipTest
from unittest.mock import patch

from tests.support.kit import CommandTestCase, change_constants
from txmux.rules.reading.parser import parse
from txmux_convert import command

_SSLH = 'listen: ( { host: "127.0.0.1"; port: "https"; } );\npidfile: "/x";\n'
_HAPROXY = "listen x\n    bind 127.0.0.1:443\n    server a 127.0.0.1:80\n"
_SNIPROXY = "user x\nlisten 443 {\n}\ntable {\n    a.example 192.0.2.1\n}\n"
_STUNNEL = "[s]\nAccept=127.0.0.1:443\nconnect = 80\ncert = /x.pem\n"
_LOST = """
frontend f
    bind 127.0.0.1:443
    use_backend a if { nbsrv(a) lt 1 }
    default_backend a
backend a
    server a 127.0.0.1:80
"""


class ConvertTests(CommandTestCase):
    def convert(self, name: str, text: str | None, *options: str) -> tuple[int, str, str]:
        if text is not None:
            self.write(name, text)
        code, out, err = self.run_main("convert", self.folder / name, *options)
        return code, out, err.replace(f"{self.folder}/", "")

    def test_rules_on_stdout_and_warnings_on_stderr(self) -> None:
        code, out, err = self.convert("sslh.cfg", _SSLH)
        self.assertEqual(code, 0)
        self.assertEqual(parse(out, "rules.ini").listeners[0].endpoints, ("127.0.0.1:443",))
        self.assertTrue(err.startswith("sslh.cfg:2: left out: pidfile (--pidfile of 'txmux run')"))
        self.assertEqual(err.count("\n"), 1)
        expected = (1, "", "txmux: a cannot be read: No such file or directory\n")
        self.assertEqual(self.convert("a", None), expected)
        file = self.write("some", _HAPROXY)
        code, out, _ = self.run_main("convert", "haproxy", file)
        self.assertEqual((code, "[listen x]" in out), (0, True))
        for words in (
            ("sslh", "--", "--listen", "127.0.0.1:443", "--ssh", "127.0.0.1:22"),
            ("--from", "sslh", "--", "sslh", "-f", "-p", "127.0.0.1:443", "--ssh", "127.0.0.1:22"),
        ):
            code, out, _ = self.run_main("convert", *words)
            self.assertEqual((code, "match = ssh\n" in out), (0, True), words)
        code, _, err = self.run_main("convert", file, file)
        self.assertEqual((code, "give one file" in err), (1, True))

    def test_no_lines_of_files_that_the_author_may_not_read(self) -> None:
        """As root, a configuration of somebody else shows no more than its owner could see."""
        if os.geteuid():
            raise SkipTest("needs root, who may read every file")
        secret = self.write("secret", "hidden.example here")
        secret.chmod(0o600)
        (self.folder / "folder").mkdir()
        self.write("folder/one.conf", "hidden.example = here").chmod(0o600)
        self.folder.chmod(0o755)
        texts = {
            "haproxy.cfg": "frontend f\n bind 127.0.0.1:1\n mode tcp\n use_backend b if { req.ssl_sni -f secret }\n"
            "backend b\n server s 127.0.0.1:2\n",
            "traefik.yml": "entryPoints: {a: {address: ':1'}}\nproviders: {file: {filename: secret}}\n",
            "stunnel.conf": f"include = {self.folder}/folder\n{_STUNNEL}",
            "sslh": f'DAEMON_OPTS="-F {secret}"\n',
            "nginx.conf": "stream {\n include secret;\n include closed/*;\n server { listen 1; proxy_pass a:1; }\n}\n",
            "nginx-inner.conf": "stream {\n include closed/open;\n server { listen 1; proxy_pass a:1; }\n}\n",
        }
        (self.folder / "closed").mkdir(mode=0o700)
        self.write("closed/open", "hidden.example here").chmod(0o644)  # its folder is closed
        for name, text in texts.items():
            os.chown(self.write(name, text), 65534, 65534)
            _, out, err = self.convert(name, None)
            self.assertNotIn("hidden", out + err)
            self.assertTrue(name == "traefik.yml" or "may not read it" in out + err, out + err)
            self.assertEqual(os.geteuid(), 0)
            os.chown(self.folder / name, 0, 0)
        self.assertIn("hidden", self.convert("haproxy.cfg", None)[1])

    def test_what_is_no_regular_file_is_not_waited_for(self) -> None:
        os.mkfifo(self.folder / "queue")
        for name, text in (
            ("nginx.conf", "stream {\n include queue;\n server { listen 1; proxy_pass a:1; }\n}\n"),
            ("sslh", f'DAEMON_OPTS="-F {self.folder}/queue"\n'),
        ):
            self.write(name, text)
            _, out, err = self.convert(name, None)
            self.assertIn("it is no regular file", out + err)

    def test_looks_are_exit_code_2_and_errors_of_the_rules(self) -> None:
        code, out, err = self.convert("haproxy.cfg", _LOST)
        self.assertEqual(code, 2)
        self.assertTrue(err.startswith("haproxy.cfg:4: LOOK: use_backend a if { nbsrv(a) lt 1 }"))
        rules = self.write("rules.ini", out)
        (line,) = [n for n, text in enumerate(out.splitlines(), 1) if text.startswith("# LOOK:")]
        code, said, _ = self.run_main("check", rules)
        self.assertEqual(code, 1)
        self.assertIn(f"rules.ini:{line}: LOOK: line 4: use_backend a if", said)
        rules.write_text(out.replace(out.splitlines()[line - 1] + "\n", ""))
        self.assertEqual(self.run_main("check", rules)[0], 0)

    def test_format_by_content_then_by_name_or_by_option(self) -> None:
        self.assertEqual(self.convert("a", _SSLH)[0], 0)
        self.assertEqual(self.convert("sslh.cfg", _HAPROXY)[0], 0)
        for text in (_SNIPROXY, _STUNNEL):
            self.assertEqual(self.convert("haproxy.cfg", text)[0], 0)
        self.assertIn("is not a file that libconfig reads", self.convert("my-sslh.cfg", "x")[2])
        self.assertIn("comes before the first section", self.convert("haproxy.cfg", "x")[2])
        self.assertIn("no frontend or listen", self.convert("haproxy.cfg", "")[2])
        err = self.told(1, self.convert("a", "x"))
        self.assertIn("name the format by --from sslh or --from haproxy", err)
        for program, code in (("haproxy", 0), ("sslh", 1), ("squid", 2)):
            found, out, err = self.convert("a", _HAPROXY, "--from", program)
            self.assertEqual((found, bool(out)), (code, not code), program)
        self.assertIn("usage: txmux convert", err)

    def test_entry_points_of_traefik(self) -> None:
        text = (
            "tcp:\n  routers: {r: {rule: HostSNI(`*`), service: s}}\n"
            '  services: {s: {loadBalancer: {servers: [{address: "127.0.0.1:1"}]}}}\n'
        )
        code, out, _ = self.convert(
            "x.yml", text, "--entrypoint", "web=127.0.0.1:80", "--entrypoint=b=:81"
        )
        self.assertEqual((code, out.count("endpoint = ")), (0, 2))
        err = self.told(2, self.convert("x.yml", text, "--entrypoint", "web"))
        self.assertIn("is not NAME=ADDRESS", err)

    def test_names_of_ports(self) -> None:
        err = self.told(1, self.convert("sslh.cfg", _SSLH.replace("https", "no-such-service")))
        self.assertIn("unknown service name 'no-such-service'; write its number", err)
        with patch("socket.getservbyname", side_effect=OSError("service/proto not found")):
            code, out, _ = self.convert("sslh.cfg", _SSLH)
            self.assertEqual(code, 0)
            self.assertIn("endpoint = 127.0.0.1:443\n", out)
            for name, number in (("www", 80), ("ntp", 123), ("tftp", 69)):
                _, out, _ = self.convert("sslh.cfg", _SSLH.replace("https", name))
                self.assertIn(f"endpoint = 127.0.0.1:{number}\n", out)

        def number_of(_name: str, protocol: str = "udp", /) -> int:
            if protocol != "udp":
                raise OSError("service/proto not found")
            return 4242

        with patch("socket.getservbyname", side_effect=number_of):
            _, out, _ = self.convert("sslh.cfg", _SSLH.replace("https", "of-udp"))
        self.assertIn("endpoint = 127.0.0.1:4242\n", out)

    def test_no_look_at_a_service_that_hosts_access_cannot_concern(self) -> None:
        text = _SSLH + 'protocols: ( { name: "ssh"; service: "ssh"; host: "::1"; port: "22"; } );'
        for rules, code in (
            (None, 0), ("# ALL: ALL\n\nin.telnetd, vsftpd: .example.com\n", 0), ("sshd: ALL\n", 0),
            ("ALL: 10.0.0.0/8\n", 2), ("in.telnetd, \\\n ssh@192.0.2.1: 10.0.0.0/8\n", 2),
            ("ALL EXCEPT in.telnetd: PARANOID\n", 2),
        ):  # fmt: skip
            allow, deny = self.folder / "hosts.allow", self.folder / "hosts.deny"
            if rules is not None:
                allow.write_text(rules)
            change_constants(self, command, _ACCESS=(allow, deny))
            found, _, err = self.convert("sslh.cfg", text)
            self.assertEqual(found, code, rules)
            self.assertIn("service: ", err)
