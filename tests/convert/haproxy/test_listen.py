from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks, rules_of
from tests.convert.haproxy.pieces import backend, frontend
from txmux.rules.optional import missing


class ListenTests(SynchronousTestCase):
    def test_certificates_of_folders_lists_and_keys(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        for name in ("a.pem", "b.pem", "b.pem.ocsp", ".hidden"):
            (folder / name).write_text("-----BEGIN PRIVATE KEY-----")
        (folder / "c.crt").write_text("-----BEGIN CERTIFICATE-----")
        (folder / "c.key").write_text("-----BEGIN PRIVATE KEY-----")
        (folder.parent / "list").write_text(f"# all\n{folder}/a.pem [alpn h2] a.example\n\n/y\n")
        for words, files in (
            (f"crt {folder}", f"{folder}/a.pem, {folder}/b.pem, {folder}/c.crt"),
            (f"crt {folder}/c.crt", f"{folder}/c.crt, {folder}/c.key"),
            (f"crt-list {folder.parent}/list", f"{folder}/a.pem, /y"),
        ):
            output = frontend("default_backend a", bind=f"bind :444 ssl {words}")
            self.assertIn(f"terminate_tls = {files}\n", output.text)
        self.assertIn(
            f"{folder.parent}/list:1: is written into the rules as it is now", output.warnings[0]
        )
        (folder / "mixed").write_text("/x\n/y [alpn h2 verify required ca-file /ca] a.example\n")
        line = f"bind :444 ssl crt-list {folder}/mixed"
        output = frontend("default_backend a", bind=f"bind :1\n    {line}")
        self.assertIn(f"line 3: {line}: is left out", looks(output)[0])

    def test_socks_proxy_of_all_servers_and_their_checks(self) -> None:
        if why := missing("via"):
            raise SkipTest(why)
        server = "server s 127.0.0.1:1 socks4 127.0.0.1:1080"
        output = backend("server t db.example:2 socks4 127.0.0.1:1080", server=server)
        self.assertIn("via = socks4://127.0.0.1:1080\n", output.text)
        self.assertEqual(looks(output), [])
        output = backend("server t 127.0.0.1:2", server=server)
        self.assertIn("these differ in via", looks(output)[0])
        for words, count in (("check check-via-socks4", 0), ("check", 1)):
            output = backend(server=f"server s 127.0.0.1:1 socks4 127.0.0.1:2 {words}")
            self.assertIsNotNone(rules_of(output).backends["x"].check)
            said = [line for line in output.warnings if "txmux by the proxy" in line]
            self.assertEqual((len(said), looks(output)), (count, []))
