"""A cable that is pulled and plugged in again, before it is too late: the connection goes on, and nothing is lost."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path as FilePath

from campaign.networks.cables import Servers, pull_out
from campaign.networks.conditions import CONDITIONS
from campaign.networks.path import MUX, SERVER, Path
from tests.interop.children import eventually, output_of
from tests.interop.mux import Mux
from tests.support.undone import Undone

_RULES = """
[listen public]
endpoint = {mux}:0
keepalive = idle=30s interval=10s count=3

[route all]
match = any
backend = {at}:{tcp}
"""

_CLIENT = """
import hashlib, select, socket, sys, threading
one = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sent, heard = hashlib.sha256(), hashlib.sha256()
enough = threading.Event()

def listen():
    while some := one.recv(65536):
        heard.update(some)
        print("heard", flush=True)

listening = threading.Thread(target=listen)
listening.start()
count = 0
while not enough.is_set():
    some = b"%d, " % count
    count += 1
    one.sendall(some)
    sent.update(some)
    if select.select([sys.stdin], [], [], 0.02)[0]:
        enough.set()
one.shutdown(socket.SHUT_WR)
listening.join()
print("whole" if sent.digest() == heard.digest() else "not whole", flush=True)
"""

_TRIES = 3
"""Times that what is on its way has been sent again in vain before the cable is plugged in again."""


def plugged_in_again(relay: str, side: str, *, ours: bool) -> list[str]:
    """Pull a cable while bytes go both ways, plug it in again, and see whether all of them arrive.

    Args:
        relay: As in ``[txmux]``.
        side: Whose cable: ``client`` or ``server``.
        ours: Which of its ends: the one at the machine of txmux, or the other one.

    Returns:
        A line for each defect.
    """
    with Undone() as undone:
        path = Path(undone, CONDITIONS["good"], 0)
        servers = Servers()
        undone.addCleanup(servers.end)
        folder = FilePath(tempfile.mkdtemp(prefix="txmux-plugged-"))
        undone.addCleanup(shutil.rmtree, folder)
        rules = _RULES.format(mux=MUX, at=SERVER, tcp=servers.tcp)
        mux = Mux(folder, rules, f"relay = {relay}", before=path.mux.command)
        undone.addCleanup(mux.child.end)
        client = path.clients.python(_CLIENT, MUX, str(mux.port))
        undone.addCleanup(client.end)
        client.wait_for("heard")
        put_back = pull_out(path, side, ours=ours)
        eventually(lambda: _is_stuck(path), "what is on its way has been sent again in vain")
        put_back()
        before = client.output.count("heard")
        eventually(lambda: client.output.count("heard") > before + 1, "bytes come back again")
        client.say(b"enough\n")
        client.wait_for("whole$")
        line = mux.take_one()
        mux.stop()
        found = []
        if "not whole" in client.output:
            found.append("what came back is not what was sent")
        if line["reason"] != "done" or line["bytes_in"] != line["bytes_out"]:
            found.append(f"{line['reason']}, {line['bytes_in']} in, {line['bytes_out']} out")
        return [f"cable plugged in again, {side}, {ours=}, {relay} relay: {one}" for one in found]


def _is_stuck(path: Path) -> bool:
    of_all = ("ss", "-tinH", "state", "established")
    told = b"".join(output_of(*place.command, *of_all) for place in (path.clients, path.mux))
    return any(b"backoff:%d" % count in told for count in range(_TRIES, 9))
