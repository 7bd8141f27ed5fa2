"""The protocols that begin in the clear, by their names in rules."""

from collections.abc import Mapping

from txmux.wire.starttls.dialogue import HANDSHAKE, ClearProtocol, ClientDialogue
from txmux.wire.starttls.ldap import LDAP
from txmux.wire.starttls.lines import FTP, IMAP, POP3, SMTP
from txmux.wire.starttls.xmpp import XMPP

PROTOCOLS: Mapping[str, ClearProtocol] = {
    "smtp": SMTP, "imap": IMAP, "pop3": POP3, "ftp": FTP, "xmpp": XMPP, "ldap": LDAP,
}  # fmt: skip


def begun(name: str, banner: str = "") -> ClientDialogue:
    """Begin a client's dialogue."""
    return ClientDialogue(PROTOCOLS[name], banner)


def tls_of(name: str, stream: bytes) -> bytes:
    """Return what a client sends behind the command that starts TLS: all of it if it begins with TLS, nothing without the command."""
    dialogue = begun(name)
    for at in range(0 if stream.startswith(HANDSHAKE) else len(stream)):
        dialogue.receive(stream[at : at + 1])
        if dialogue.then:
            return stream[at + 1 :] if dialogue.then == "tls" else b""
    return stream if stream.startswith(HANDSHAKE) else b""
