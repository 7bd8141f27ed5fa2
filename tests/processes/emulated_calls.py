"""``python -m tests.processes.emulated_calls``: what a worker calls where QEMU emulates its machine, which lists that itself.

There is no sandbox there. The names of all calls that it makes once it serves have to be those of the filter.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from txmux.processes.worker.calls import rules_for

_RULES = """
[txmux]
admin      = unix:{folder}/admin.sock
access_log = {folder}/access.log
[listen public]
endpoint = 127.0.0.1:{port}
default  = 127.0.0.1:{server}
"""
_PATIENCE = 300.0  # an emulated machine is slow


def main() -> int:
    program = (sys.executable, "-m", "txmux")
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_PATIENCE)
        folder, port = Path(name), _free_port()
        rules, log = folder / "rules.ini", folder / "stderr"
        rules.write_text(_RULES.format(folder=folder, port=port, server=server.getsockname()[1]))
        with log.open("w") as output:
            service = subprocess.Popen(
                [*program, "run", rules], stderr=output, env={**os.environ, "QEMU_STRACE": "1"}
            )
        try:
            _wait_for(log, "serving with")
            ask = [*program, "status", "--json", "--admin", f"unix:{folder}/admin.sock"]
            status = json.loads(subprocess.run(ask, stdout=subprocess.PIPE, check=True).stdout)
            before = log.stat().st_size
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", port), _PATIENCE) as client:
                    client.sendall(b"x" * 100_000)
                    accepted, _ = server.accept()
                    with accepted:
                        accepted.recv(1)
            subprocess.run([*program, "reload", *ask[-2:]], check=True)
            _wait_for(log, "rules reloaded")
        finally:
            service.terminate()
            service.wait()
        text = log.read_bytes()[before:].decode(errors="replace")
    pid = status["workers"][0]["pid"]
    made = set(re.findall(rf"^{pid} (\w+)\(", text, re.MULTILINE))
    refused = made - dict(rules_for(pid)).keys()
    print(f"{os.uname().machine}: {len(made)} calls: {' '.join(sorted(made))}")  # noqa: T201
    print(f"refused: {' '.join(sorted(refused)) or 'none'}")  # noqa: T201
    return int(bool(refused) or not made)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _wait_for(log: Path, text: str) -> None:
    until = time.monotonic() + _PATIENCE
    while text not in log.read_text(errors="replace"):
        if time.monotonic() > until:
            raise TimeoutError(text)
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
