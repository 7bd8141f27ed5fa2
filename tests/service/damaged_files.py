"""A service whose rules name a file for each key that takes one, each of which can be damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.rules.test_named_files import folder_of_files
from tests.support.certificates import make_authority
from tests.support.ech import MadeKey
from tests.support.places import country, write_places
from tests.support.supervised import SupervisedTestCase

RULES = """\
[txmux]
access_log = {0}/logs/access.log
admin = 127.0.0.1:0
admin_token = {0}/admin_token
admin_tokens = {0}/admin_tokens
consul = http://127.0.0.1:1 token={0}/consul
crowdsec_key = {0}/crowdsec_key
shared_limits = redis://127.0.0.1:1/0 password={0}/shared_limits
geo_databases = {0}/geo_databases
acme = https://127.0.0.1:1/dir
acme_folder = {0}/acme_folder
acme_ca = {0}/acme_ca
[listen public]
endpoint = 127.0.0.1:0
ech_keys = {0}/ech_keys
allow = @{0}/networks
    ::/0
deny = crowdsec:http://127.0.0.1:1, geo:country=DE
[route tls]
match = tls sni=a.example
terminate_tls = {0}/terminate_tls
tls_client_ca = {0}/tls_client_ca
tls_client_crl = {0}/tls_client_crl
[route acme]
match = tls sni=b.example
terminate_tls = acme
[route inside]
match = http
under = tls, acme
backend = web
[route tunnel]
match = socks5
tunnel = yes
tunnel_users = {0}/tunnel_users
backend = web
[backend web]
server = 127.0.0.1:443
tls = yes
tls_name = a.example
tls_ca = {0}/tls_ca
tls_client_certificate = {0}/tls_client_certificate
via = http://ops:{0}/via@10.0.0.9:1
"""
FILES = (
    *(
        "logs/access.log",
        "logs",
        "admin_token",
        "admin_tokens",
        "consul",
        "crowdsec_key",
        "shared_limits",
    ),
    *("geo_databases", "acme_folder/b.example.pem", "acme_folder", "acme_ca", "ech_keys/a.pem"),
    *("ech_keys", "networks", "terminate_tls", "tls_client_ca", "tls_client_crl", "tunnel_users"),
    *("tls_ca", "tls_client_certificate", "via"),
)
_HASH = "$2y$05$" + 53 * "a"


class DamagedFilesCase(SupervisedTestCase):
    def setUp(self) -> None:
        super().setUp()
        shutil.rmtree(self.folder)
        self.folder = folder_of_files(self)
        self.file = self.folder / "rules.ini"
        self.file.write_text(RULES.format(self.folder))
        root = make_authority()
        identity = root.issue("a.example")
        for name in ("acme_ca", "tls_client_ca", "tls_ca"):
            root.write(self.folder / name)
        (self.folder / "tls_client_crl").write_bytes(root.revoke())
        for name in ("terminate_tls", "tls_client_certificate"):
            (self.folder / name).write_bytes(identity.pem + root.pem + identity.key_pem())
        root.issue("b.example").write(self.folder / "acme_folder/b.example.pem", key=True)
        MadeKey().write(self.folder / "ech_keys/a.pem")
        (self.folder / "admin_token").write_text(20 * "x")
        (self.folder / "admin_tokens").write_text(f"ops all {20 * 'y'}\n")
        (self.folder / "tunnel_users").write_text(f"bob:{_HASH}\n")
        (self.folder / "logs").mkdir()
        (self.folder / "logs/access.log").touch()
        write_places(self.folder / "geo_databases", {"10.0.0.0/8": country("DE")})

    def damages(self, path: Path) -> Iterator[str]:
        """Damage a file in each way, and put it back."""
        kept = path.with_name("kept")
        path.rename(kept)
        whole = kept.read_bytes() if kept.is_file() else b""
        contents = {
            "empty": b"",
            "garbage": b"\x00\xff\x80 garbage\n",
            "half": whole[: len(whole) // 2],
            "appended": whole + b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n",
        }
        makes: dict[str, Callable[[], object]] = {
            "gone": lambda: None,
            "unreadable": lambda: path.symlink_to(path),
            "folder": path.mkdir,
            **{name: partial(path.write_bytes, content) for name, content in contents.items()},
        }
        for name, make in makes.items():
            make()
            yield name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
        kept.rename(path)
