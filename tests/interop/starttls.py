"""Servers that begin in the clear and offer STARTTLS, on free ports of 127.0.0.1; only root can start some of them."""

import os
import pwd
from pathlib import Path

import attrs

from tests.interop.servers import Certificate, Running
from tests.support.kit import Child, eventually, free_port, listens, output_of, write


@attrs.frozen
class ClearServer(Running):
    """A running server, with the folder of its mail or files, and the port of a server for mail that has no TLS."""

    files: Path
    clear: int = 0


_POSTFIX = """\
compatibility_level = 3.6
maillog_file = /dev/stdout
queue_directory = {folder}/queue
data_directory = {folder}/data
myhostname = {name}
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
virtual_mailbox_domains = {name}
virtual_mailbox_base = {folder}
virtual_mailbox_maps = static:mail/
virtual_uid_maps = static:{user.pw_uid}
virtual_gid_maps = static:{user.pw_gid}
smtpd_tls_security_level = may
smtpd_tls_cert_file = {certificate.chain}
smtpd_tls_key_file = {certificate.key}
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd -o smtpd_upstream_proxy_protocol=haproxy
127.0.0.1:{clear} inet n - n - - smtpd -o smtpd_tls_security_level=none
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
virtual unix - n n - - virtual
tlsmgr unix - - n 1000? 1 tlsmgr
"""


def start_postfix(folder: Path, certificate: Certificate, name: str) -> ClearServer:
    """Start a server for the mail of a domain; it believes the PROXY header that it wants."""
    user, port, clear = pwd.getpwnam("postfix"), free_port(), free_port()
    for part in ("queue", "data", "mail"):
        (folder / part).mkdir(mode=0o755)
    for part in ("data", "mail"):
        os.chown(folder / part, user.pw_uid, user.pw_gid)
    main = _POSTFIX.format(folder=folder, name=name, certificate=certificate, user=user)
    write(folder / "main.cf", main)
    write(folder / "master.cf", _MASTER.format(port=port, clear=clear))
    output_of("postfix", "-c", folder, "check")  # which makes the folders of the queue
    child = Child("/usr/lib/postfix/sbin/master", "-c", folder, "-s", ready="daemon started")
    return ClearServer(child, port, folder / "mail", clear)


_DOVECOT = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = /dev/stderr
protocols = imap pop3
listen = 127.0.0.1
login_greeting = {name} ready.
ssl = yes
ssl_cert = <{certificate.chain}
ssl_key = <{certificate.key}
disable_plaintext_auth = yes
first_valid_uid = 1
mail_location = maildir:{folder}/mail
passdb {{
    driver = static
    args = password=secret
}}
userdb {{
    driver = static
    args = uid={user.pw_uid} gid={user.pw_gid} home={folder}
}}
service imap-login {{
    inet_listener imap {{
        port = {port}
    }}
    inet_listener imaps {{
        port = 0
    }}
}}
service pop3-login {{
    inet_listener pop3 {{
        port = {clear}
    }}
    inet_listener pop3s {{
        port = 0
    }}
}}
"""


def start_dovecot(folder: Path, certificate: Certificate, name: str) -> ClearServer:
    """Start a server with IMAP, and with POP3 at the other port; every user has the password ``secret`` and the same mail."""
    user, port, clear = pwd.getpwnam("nobody"), free_port(), free_port()
    write(folder / "mail/cur/1:2,", f"Subject: {name}\n\nbody\n")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    own = {"folder": folder, "name": name, "certificate": certificate, "user": user}
    file = write(folder / "dovecot.conf", _DOVECOT.format(**own, port=port, clear=clear))
    child = Child("dovecot", "-F", "-c", file, ready="starting up for imap")
    return ClearServer(child, port, folder / "mail", clear)


_VSFTPD = """\
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root={files}
secure_chroot_dir={files}
seccomp_sandbox=NO
ssl_enable=YES
allow_anon_ssl=YES
force_anon_data_ssl=YES
force_anon_logins_ssl=YES
require_ssl_reuse=NO
ssl_ciphers=HIGH
rsa_cert_file={certificate.chain}
rsa_private_key_file={certificate.key}
"""


def start_vsftpd(folder: Path, certificate: Certificate) -> ClearServer:
    port, files = free_port(), folder / "files"
    files.mkdir()
    text = _VSFTPD.format(port=port, files=files, certificate=certificate)
    child = Child("vsftpd", write(folder / "vsftpd.conf", text))
    eventually(lambda: listens(port), "vsftpd listens")
    return ClearServer(child, port, files)


_PROSODY = """\
run_as_root = true
pidfile = "{folder}/pid"
data_path = "{folder}/data"
log = {{ info = "*console" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
s2s_ports = {{ }}
modules_enabled = {{ "tls", "saslauth" }}
c2s_require_encryption = true
VirtualHost "{name}"
    ssl = {{ certificate = "{certificate.chain}"; key = "{certificate.key}" }}
"""


def start_prosody(folder: Path, certificate: Certificate, name: str) -> ClearServer:
    port = free_port()
    (folder / "data").mkdir()
    text = _PROSODY.format(folder=folder, name=name, certificate=certificate, port=port)
    command = ("prosody", "-F", "--config", write(folder / "prosody.cfg.lua", text))
    child = Child(*command, ready=rf"Activated service 'c2s' on .*{port}")
    return ClearServer(child, port, folder / "data")


_SLAPD = """\
pidfile {folder}/pid
modulepath /usr/lib/ldap
TLSCertificateFile {certificate.chain}
TLSCertificateKeyFile {certificate.key}
security tls=128
"""


def start_slapd(folder: Path, certificate: Certificate) -> ClearServer:
    """Start a directory that has its root alone, and shows that over TLS."""
    port = free_port()
    file = write(folder / "slapd.conf", _SLAPD.format(folder=folder, certificate=certificate))
    command = ("slapd", "-d", "256", "-h", f"ldap://127.0.0.1:{port}", "-f", file)
    return ClearServer(Child(*command, ready="slapd starting"), port, folder)
