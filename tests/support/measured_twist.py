"""Runs the ``twist`` named by its first argument and saves what coverage has measured when the reactor has stopped.

``twist`` ends itself with the signal that stopped it, so nothing that is left for the exit of Python is ever done.
"""

import runpy
import signal
import sys
from typing import Any

from coverage import Coverage
from twisted.internet import main

if __name__ == "__main__":
    measuring = Coverage.current()
    install = main.installReactor

    def install_and_save(reactor: Any = None) -> None:
        """Install whichever reactor is wanted, with what it does at last."""
        install(reactor)
        if measuring is not None:
            reactor.addSystemEventTrigger("after", "shutdown", measuring.save)

    main.installReactor = install_and_save
    # Coverage would save at a signal, too, but not bear several of them.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
