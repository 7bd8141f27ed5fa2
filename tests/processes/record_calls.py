"""``python -m tests.processes.record_calls [ARGUMENT …]``: records the system calls of workers while pytest runs with these arguments.

All services of the tests have a filter that has nearly every call reported, and made all the same. What is new is added to
``recorded_calls.txt``. ``-- PROGRAM ARGUMENT …`` runs another program than pytest.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from txmux.processes.worker.calls import WITH_ARGUMENTS, Given
from txmux.processes.worker.seccomp import MACHINES

RECORD = Path(__file__).with_name("recorded_calls.txt")

FREQUENT = frozenset(
    {
        # So frequent that each of them would have to wait.
        *("read", "write", "recvfrom", "recvmsg", "sendto", "epoll_wait", "epoll_ctl", "accept4"),
        *("splice", "setsockopt", "getsockopt", "getsockname", "connect", "shutdown"),
        # What the worker does between its filter, and when its calls are answered.
        *("brk", "close", "futex", "madvise", "mmap", "mprotect", "mremap", "munmap", "sendmsg"),
        *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn"),
    }
)
"""These are made without a report."""

_RECORDING = """
import os
try:
    from txmux.processes.worker import refusals
    from txmux.processes.worker import seccomp
    from txmux.processes.worker.calls import WITH_ARGUMENTS, Rule
except ImportError:
    pass
else:
    def describe(number, architecture, _, *arguments):
        with open({record!r}, "a") as file:
            file.write(" ".join(map(str, (number, *arguments))) + "\\n")
        return ""

    def respond(self, listener, number):
        answer = bytearray(refusals._ANSWER.pack(number, 0, 0, 1))  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
        refusals.fcntl.ioctl(listener, refusals._SEND, answer)

    made = dict.fromkeys({frequent!r}, [Rule()])
    made["clone3"] = WITH_ARGUMENTS["clone3"]  # so that `clone` is seen
    seccomp.rules_for = lambda _: made.items()
    refusals._MOST_REPORTED = 0
    refusals.describe = describe
    refusals.RefusedCalls.respond = respond
"""


def main(arguments: list[str]) -> int:
    pytest = [sys.executable, "-m", "pytest", *arguments]
    command = arguments[1:] if arguments[:1] == ["--"] else pytest
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made")
        made.touch()
        for path, mode in ((Path(folder), 0o755), (made, 0o666)):
            path.chmod(mode)  # workers may be another user's
        program = _RECORDING.format(record=str(made), frequent=sorted(FREQUENT))
        Path(folder, "sitecustomize.py").write_text(program)
        paths = os.pathsep.join([folder, os.environ.get("PYTHONPATH", str(Path.cwd()))])
        status = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False)
        found = {*RECORD.read_text().splitlines(), *map(_line, set(made.read_text().splitlines()))}
    RECORD.write_text("".join(f"{line}\n" for line in sorted(found)))
    return status.returncode


def _line(made: str) -> str:
    """Return a call by its name, and the arguments by which its rules distinguish."""
    number, *arguments = map(int, made.split())
    names = {at: name for name, at in MACHINES[os.uname().machine][0].items()}
    rules = WITH_ARGUMENTS.get(names[number], ())
    fitting = [rule for rule in rules if all(fits(one, arguments) for one in rule.conditions)]
    counts = {one.argument for rule in fitting[:1] or rules for one in rule.conditions}
    shown = (f"{at}={arguments[at] & (2**32 - 1)}" for at in sorted(counts))
    return " ".join([names[number], *shown])


def fits(condition: Given, arguments: Sequence[int]) -> bool:
    return arguments[condition.argument] & condition.mask in condition.values


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
