"""The `txmux` program, also as ``python -m txmux``."""

import atexit
import os
import sys

from txmux.processes.held_signals import hold_signals


def main() -> int:
    """Run the program; see `txmux.cli.main`."""
    is_service = sys.argv[1:2] == ["run"]
    if is_service:
        hold_signals()  # importing takes a second, and nothing can be done for them before
    from txmux.cli import main as run  # noqa: PLC0415 - after that

    status = run()
    if is_service:
        # The end of the interpreter would take 50 ms, in which a signal has its default effect again.
        atexit._run_exitfuncs()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
