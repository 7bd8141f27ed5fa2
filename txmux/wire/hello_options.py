"""What matchers ask of a ClientHello, and what they tell of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.interfaces import Key
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, hosts, option_globs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from txmux.interfaces import Peeked
    from txmux.wire.client_hello import HelloReader

__all__ = ["ServerNames", "hello_facts", "name_in", "server_names"]

_NO_NAME = "none"


@attrs.frozen
class ServerNames:
    """The server names that are wanted.

    Attributes:
        some: Patterns of names.
        none: Whether a hello without a name will do.
    """

    some: Globs | None
    none: bool

    def key(self, read: Callable[[Peeked], str | None]) -> Key | None:
        """Give the key of a predicate that wants these.

        Args:
            read: Gives the name; see `name_in`.
        """
        key = self.some.key(read) if self.some else Key(read)
        return attrs.evolve(key, exact=key.exact | {""}) if key and self.none else key

    def fit(self, reader: HelloReader) -> bool:
        """Tell whether the name, or what is known of it, is wanted."""
        if reader.sni is None:
            return self.none or not reader.hello
        if not reader.sni and self.none:
            return True
        return self.some is not None and self.some.matches(reader.sni)


def server_names(options: Mapping[str, str]) -> ServerNames | None:
    """Read the option ``sni=``; ``None`` if it is not there.

    Raises:
        OptionError: Its patterns cannot be used.
    """
    if "sni" not in options:
        return None
    items = options["sni"].split(",")
    some = [item for item in items if item.strip() != _NO_NAME]
    globs = option_globs({"sni": ",".join(some)}, "sni", hosts) if some else None
    return ServerNames(globs, none=len(some) < len(items))


def name_in(reader: HelloReader) -> str | None:
    """Give the server name as a `Key` wants it: empty if there is none, ``None`` while it is not known."""
    if reader.sni is not None:
        return reader.sni
    return "" if reader.hello or reader.malformed else None


def hello_facts(reader: HelloReader) -> dict[str, str]:
    """Give what a hello tells, as far as it has come."""
    facts = {
        "sni": reader.sni,
        "alpn": ",".join(reader.alpn or ()),
        "tls": reader.version,
        "ja4": reader.ja4(),
    }
    return {name: printable(value) for name, value in facts.items() if value}
