"""A TFTP server that answers from another port than the one that it was asked at."""

from __future__ import annotations

from tests.interop.children import InteropTestCase, run
from tests.interop.datagrams.lookups import start_tftp
from tests.interop.datagrams.program import PORT
from tests.interop.mux import Mux
from tests.interop.namespaces import Namespace

_RULES = f"""
[listen port]
endpoint = udp:{PORT}
[route files]
match = tftp
backend = files
[backend files]
server = udp:127.0.0.1:69
unanswered_timeout = 1s
"""


class OtherPortTests(InteropTestCase):
    """What RFC 1350 says, and what the reference says of it."""

    def test_no_answer(self) -> None:
        Namespace(self).enter()
        (self.folder / "image").write_bytes(b"whole")
        self.own(start_tftp(self.folder, "--interface=lo"))
        mux = self.own(Mux(self.folder, _RULES))
        curl = ("curl", "--silent", "--tftp-no-options", "--max-time")
        self.assertEqual(run(*curl, "20", "tftp://127.0.0.1:69/image").stdout, b"whole")
        self.assertEqual(run(*curl, "1", f"tftp://127.0.0.1:{PORT}/image").stdout, b"")
        line = mux.take_one()
        found = (line["route"], line["reason"], line["datagrams_out"], line["facts"]["path"])
        self.assertEqual(found, ("files", "unanswered", 0, "image"))
