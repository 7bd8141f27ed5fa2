"""Runs txmux under ``twistd``, which can also go into the background, change user and write a PID file.

Try it with ``twistd -ny txmux.tac``. The rules are those of the file that TXMUX_RULES names in the environment,
or else of ``rules.ini`` beside this file.
"""

import os
import time
from pathlib import Path

from twisted.application.service import Application
from twisted.internet import reactor
from twisted.plugins.txmux_service import txmux

# Before anything is scheduled: timers must not depend on the time of day, which may be set.
reactor.seconds = time.monotonic

rules = os.environ.get("TXMUX_RULES") or Path(__file__).with_name("rules.ini")

# As `twistd txmux --rules` makes it: a mistake ends the program with one message. `MuxService.from_file` raises it.
options = txmux.options()
options.parseOptions(["--rules", str(rules)])

application = Application("txmux")
txmux.makeService(options).setServiceParent(application)
