"""A service with some of everything, and what its API tells of it; `python -m tests.admin.everything` records that.

The views of a running service are tested with the recorded documents (`tests/support/everything.py`).
"""

import json
import os
import re
import socket
import sys
from typing import Any

import pytest

from tests.support.everything import FILE
from tests.support.kit import AdminCase, PeerFactory, connect, listen, make_authority, turn

_SSH = b"SSH-2.0-a\r\n"
_RULES = """\
[listen public]
endpoint = 127.0.0.1:0
accept_proxy_from = 127.0.0.1
detect_timeout = 1h
{more}
[listen names]
endpoint = udp:127.0.0.1:0
[route tls]
under = public
match = tls
terminate_tls = {pem}
backend = close
[route site]
under = public
match = ssh
backend = web
[backend web]
server = 127.0.0.1:{port}
    127.0.0.1:{gone}
check = tcp interval=1s
"""
_LISTS = "routes", "backends", "connections", "recent", "clients", "certificates", "bans", "rules"


async def start_everything(case: AdminCase, more: str = "") -> tuple[int, int]:
    """Run it, with more lines for a listener, until each of its parts has something to tell; return the ports of its servers."""
    web = PeerFactory()
    pem = make_authority("Test", "www.example.com").write(case.folder / "a.pem", key=True)
    with socket.create_server(("127.0.0.1", 0)) as going:
        gone, port = going.getsockname()[1], listen(case, web)
        rules = _RULES.format(more=more, pem=pem, port=port, gone=gone)
        await case.start("max_connections = 100", rules)
        while not all(one["check"] for one in await _servers(case)):
            await turn()
    # Checks find it down when it has failed several: the first client comes before.
    for number, said in enumerate((_SSH, b"SSH", _SSH, b"\0\1what is this"), 1):
        client = await connect(case, case.port)
        header = f"PROXY TCP4 192.0.2.{number} 198.51.100.1 5000{number} 443\r\n"
        client.send(header.encode() + said)
        if said == _SSH:
            await web.peer(len(web.peers))
    await client.is_lost()
    await case.post("/api/bans", {"network": "192.0.2.7", "reason": "scans"})
    while not (await case.get("/api/recent")).json or (await _servers(case))[1]["state"] != "down":
        await turn()
    return port, gone


async def _servers(case: AdminCase) -> Any:
    return (await case.get("/api/backends")).json[0]["servers"]


async def all_documents(case: AdminCase) -> dict[str, Any]:
    found = {name: (await case.get(f"/api/{name}")).json for name in ("status", *_LISTS)}
    chosen = await case.get(f"/api/connections/{found['connections'][0]['id']}")
    return {**found, "connection": chosen.json}


class RecordTest(AdminCase):
    async def test_record(self) -> None:
        web, gone = await start_everything(self)
        text = json.dumps(await all_documents(self))
        for known, shown in (
            (str(self.folder), "/etc/txmux"), (rf"127.0.0.1:{web}\b", "127.0.0.1:8080"),
            (rf"127.0.0.1:{gone}\b", "127.0.0.1:8081"),
            (rf"127.0.0.1:{self.port}\b", "127.0.0.1:443"), (rf"\b{os.getpid()}\b", "4711"),
        ):  # fmt: skip
            text = re.sub(known, shown, text)
        lines = [f'"{name}": {json.dumps(its)}' for name, its in json.loads(text).items()]
        FILE.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", f"{__file__}::RecordTest"]))
