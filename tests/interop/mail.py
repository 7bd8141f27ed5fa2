"""Mail servers that offer STARTTLS, on free ports of 127.0.0.1; root alone can start them."""

import os
import pwd
from pathlib import Path

import attrs

from tests.interop.children import Child
from tests.interop.servers import Certificate
from tests.support.ports import free_port


@attrs.frozen
class MailServer:
    """A running server.

    Attributes:
        mail: The folder with what was delivered, or is there to be read.
    """

    child: Child
    port: int
    mail: Path

    def end(self) -> None:
        self.child.end()


_POSTFIX = """\
compatibility_level = 3.6
maillog_file = /dev/stdout
maillog_file_prefixes = /dev
queue_directory = {folder}/queue
data_directory = {folder}/data
myhostname = {name}
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
virtual_mailbox_domains = {name}
virtual_mailbox_base = {folder}
virtual_mailbox_maps = static:mail/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_tls_security_level = may
smtpd_tls_cert_file = {certificate.chain}
smtpd_tls_key_file = {certificate.key}
alias_maps =
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd {options}
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
virtual unix - n n - - virtual
tlsmgr unix - - n 1000? 1 tlsmgr
"""


def start_postfix(folder: Path, certificate: Certificate, name: str, *options: str) -> MailServer:
    """Start a server for the mail of a domain."""
    postfix, port = pwd.getpwnam("postfix"), free_port()
    for part in ("queue", "data", "mail"):
        (folder / part).mkdir()
    for part in ("data", "mail"):
        (folder / part).chmod(0o700)
        os.chown(folder / part, postfix.pw_uid, postfix.pw_gid)
    text = _POSTFIX.format(
        folder=folder, name=name, certificate=certificate, uid=postfix.pw_uid, gid=postfix.pw_gid
    )
    (folder / "main.cf").write_text(text)
    (folder / "master.cf").write_text(_MASTER.format(port=port, options=" ".join(options)))
    child = Child("postfix", "-c", folder, "start-fg")
    child.wait_for("daemon started")
    return MailServer(child, port, folder / "mail")
