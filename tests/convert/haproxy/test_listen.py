from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks
from tests.convert.haproxy.pieces import frontend


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
        told = f"{folder.parent}/list:1: is written into the rules as it is now"
        self.assertIn(told, output.warnings[0])
        (folder / "mixed").write_text("/x\n/y [alpn h2 verify required ca-file /ca] a.example\n")
        line = f"bind :444 ssl crt-list {folder}/mixed"
        output = frontend("default_backend a", bind=f"bind :1\n    {line}")
        self.assertIn(f"line 3: {line}: is left out", looks(output)[0])
