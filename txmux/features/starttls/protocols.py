"""The protocols that begin in the clear, by their names in rules."""

from collections.abc import Mapping

from txmux.features.starttls.dialogue import NOT_TLS, ClearProtocol, ClientDialogue
from txmux.features.starttls.ldap import LDAP
from txmux.features.starttls.lines import FTP, IMAP, POP3, SMTP
from txmux.features.starttls.xmpp import XMPP
from txmux.wire.hello.records import HANDSHAKE

PROTOCOLS: Mapping[str, ClearProtocol] = {
    "smtp": SMTP, "imap": IMAP, "pop3": POP3, "ftp": FTP, "xmpp": XMPP, "ldap": LDAP,
}  # fmt: skip


def begun(name: str, banner: str = "") -> ClientDialogue:
    return ClientDialogue(PROTOCOLS[name], banner)


def tls_of(name: str, stream: bytes) -> tuple[bytes, str]:
    """Return a client's TLS, behind the command that starts it or without the dialogue, and why its connection ends before."""
    dialogue, at = begun(name), 0
    while not (dialogue.then or at == len(stream) or stream.startswith(HANDSHAKE)):
        dialogue.receive(stream[at : at + 1])
        at += 1
    rest = stream[at:]
    if dialogue.then == "end":
        return b"", dialogue.problem
    return (rest, "") if rest.startswith(HANDSHAKE) else (b"", NOT_TLS if rest else "")
