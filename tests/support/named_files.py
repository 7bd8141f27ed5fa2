"""Rules that name a file for each key that takes one, and these files."""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import make_authority
from tests.support.folders import make_folder
from tests.support.installed import as_installed
from tests.support.places import country, write_places
from txmux.rules.optional import missing

RULES = as_installed("""\
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
acme_eab = {0}/acme_eab
[listen public]
endpoint = 127.0.0.1:0
ech_keys = {0}/ech_keys
allow = @{0}/networks
    ::/0
deny = crowdsec:http://127.0.0.1:1, geo:country=DE
[route tls]
under = public
match = tls sni=a.example
terminate_tls = {0}/terminate_tls
tls_client_ca = {0}/tls_client_ca
tls_client_crl = {0}/tls_client_crl
[route acme]
under = public
match = tls sni=b.example
terminate_tls = acme
backend = web
[route inside]
match = http
under = tls, acme
backend = web
[route tunnel]
under = public
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
""")
BY_TWISTED = """\
[listen odd]
endpoint = ssl:0:interface=127.0.0.1:privateKey={0}/endpoint
[backend odd]
server = ssl:b.example:443:hostname=b.example:certKey={0}/server:privateKey={0}/server
"""
"""Files that Twisted opens: the sandbox does not go with them."""


def _there(names: str) -> list[str]:
    return [name for name in names.split() if not missing(name)]


SECRETS = {
    "supervisor": _there("admin_token admin_tokens acme_eab consul crowdsec_key shared_limits"),
    "sent": _there("terminate_tls tunnel_users tls_client_certificate via"),
    "worker-itself": ["endpoint", "server"],
}
OPEN = _there("acme_ca geo_databases tls_client_ca tls_client_crl tls_ca")
KEY_FOLDERS = _there("ech_keys")
MADE = _there("acme_folder")
"""Folders that the service makes."""
FILES = (
    *re.findall(r"\{0\}/([a-z_./]+)", RULES), "logs", *(f"{name}/b.example.pem" for name in MADE),
    *(f"{name}/a.pem" for name in KEY_FOLDERS),
)  # fmt: skip
_HASH = "$2y$05$" + 53 * "a"
KEY_OF_HELLOS = """\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
-----BEGIN ECHCONFIG-----
AEX+DQBBBwAgACCPQMWtto8lYkrlshTqdnpuyU2CnT17XhrRum8+ITgoXwAIAAEAAQABAANADnB1YmxpYy5leGFtcGxlAAA=
-----END ECHCONFIG-----
"""
"""One that ``txmux ech new`` could have written."""


def folder_of_files(test: SynchronousTestCase) -> Path:
    """Make a folder that every user may come to, with what the keys of `RULES` and `BY_TWISTED` name, which only the owner may read."""
    folder = make_folder(test)
    root = make_authority()
    identity = root.issue("a.example")
    for name in (*KEY_FOLDERS, *MADE, "logs"):
        (folder / name).mkdir()
    for name in ("acme_ca", "tls_client_ca", "tls_ca"):
        root.write(folder / name)
    (folder / "tls_client_crl").write_bytes(root.revoke())
    for name in ("endpoint", "terminate_tls", "tls_client_certificate", "server"):
        (folder / name).write_bytes(identity.pem + root.pem + identity.key_pem())
    for name in MADE:
        root.issue("b.example").write(folder / name / "b.example.pem", key=True)
    for name in KEY_FOLDERS:
        (folder / name / "a.pem").write_text(KEY_OF_HELLOS)
    for name in ("consul", "crowdsec_key", "shared_limits", "via"):
        (folder / name).write_text("secret")
    (folder / "acme_eab").write_text("a YWFhYWFhYWFhYQ")
    (folder / "admin_token").write_text(20 * "x")
    (folder / "admin_tokens").write_text(f"ops all {20 * 'y'}\n")
    (folder / "tunnel_users").write_text(f"bob:{_HASH}\n")
    (folder / "networks").write_text("10.0.0.0/8\n")
    (folder / "logs/access.log").touch()
    write_places(folder / "geo_databases", {"10.0.0.0/8": country("DE")})
    optional = "acme_ca acme_eab consul crowdsec_key geo_databases shared_limits tunnel_users via"
    for name in filter(missing, optional.split()):  # no rule names it
        (folder / name).unlink()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o600)
    for name in MADE:
        (folder / name).chmod(0o700)
    return folder
