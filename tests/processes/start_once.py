"""``python -m tests.processes.start_once``: starts a service with all that is sandboxed, which must need no attention."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

_RULES = """
[txmux]
sandbox = yes
workers = 2
admin   = unix:{folder}/admin.sock
[listen public]
endpoint = 127.0.0.1:0
default  = close
"""
_PATIENCE = 60.0
_SETTLED = 5.0


def main() -> int:
    program = (sys.executable, "-m", "txmux")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rules = folder / "rules.ini"
        rules.write_text(_RULES.format(folder=folder))
        service = subprocess.Popen([*program, "run", rules])
        try:
            until = time.monotonic() + _PATIENCE
            while not (folder / "admin.sock").exists() and time.monotonic() < until:
                time.sleep(0.1)
            time.sleep(_SETTLED)  # calls that are made a little later, too
            check = [*program, "status", "--check", "--admin", f"unix:{folder}/admin.sock"]
            return subprocess.run(check, check=False).returncode
        finally:
            service.terminate()
            service.wait()


if __name__ == "__main__":
    sys.exit(main())
