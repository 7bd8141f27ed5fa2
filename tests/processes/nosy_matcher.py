"""A plugin that tries to do what the sandbox forbids, whenever a client comes. The tests copy it to where plugins are looked for."""

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from txmux.files import read_bytes
from txmux.interfaces import Verdict
from txmux.wire.plain import PlainMatcher

_FOLDER = Path(os.environ.get("NOSY_FOLDER", "."))
_SECRET = _FOLDER / "secret"

_log = Logger(namespace="txmux")


def _in_a_thread() -> None:
    caught: list[OSError] = []

    def read() -> None:
        try:
            _SECRET.read_bytes()
        except OSError as problem:
            caught.append(problem)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    if caught:
        raise caught[0]


_ATTEMPTS: Mapping[str, Callable[[], object]] = {
    "passwords": lambda: Path("/etc/shadow").read_bytes(),
    "read": _SECRET.read_bytes,
    "list": lambda: list(_FOLDER.iterdir()),
    "thread": _in_a_thread,
    "named": (_FOLDER / "site.pem").read_bytes,  # only txmux's own code asks the helper
    "helper": lambda: read_bytes(_SECRET),
    "parent": lambda: Path(f"/proc/{os.getppid()}/root/etc/shadow").read_bytes(),
    "memory": lambda: Path(f"/proc/{os.getppid()}/mem").open("rb").close(),
    "write": lambda: (_FOLDER / "made").write_bytes(b"x"),
    "append": lambda: _SECRET.open("ab").close(),
    "remove": (_FOLDER / "old").unlink,
    "link": lambda: (_FOLDER / "link").symlink_to("secret"),
    "execute": lambda: subprocess.run(["/bin/true"], check=True),
}


class _Nosy:
    longest = 1

    def __call__(self, peeked: Any) -> Verdict:
        for name, attempt in _ATTEMPTS.items():
            try:
                attempt()
                what = "done"
            except OSError as problem:
                what = errno.errorcode[problem.errno or 0]
            _log.info("tried {name}: {what}", name=name, what=what)
        _log.info("tried all")
        return Verdict.MATCH


nosy = PlainMatcher("nosy", "any client", _Nosy())
