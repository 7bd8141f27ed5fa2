"""A hidden hello behind what else may stand before a client's own bytes."""

from typing import Any

from tests.features.ech.client import HIDDEN, INNER, SESSION, MadeKey, Sealer, inner
from tests.tcp import test_preambles
from tests.wire.hello_builder import (
    KEY_SHARE,
    client_hello,
    extension,
    records,
    server_name,
    sized,
    versions,
)

_MADE = MadeKey()
_SHARE = extension(KEY_SHARE, sized(2, b"share"))
_OPENED = client_hello(server_name(HIDDEN), INNER, versions(0x0304), _SHARE, session_id=SESSION)


class HiddenTest(test_preambles.OrderTest):
    lasts = ("e",)

    def setUp(self) -> None:
        super().setUp()
        self.keys = _MADE.write(self.folder / "ech.pem")

    def settings(self, chain: str) -> dict[str, Any]:
        settings = super().settings(chain)
        settings["more"]["ech_keys"] = self.keys
        return settings

    def payload(self, chain: str) -> tuple[bytes, bytes]:
        return records(Sealer(_MADE).hello(inner())), self.asked + records(_OPENED)
