"""Runs txmux under ``twistd``, which can also go into the background, change user and write a PID file.

Try it with ``twistd -ny txmux.tac``. The rules are those of the file that TXMUX_RULES names in the environment,
or else of ``rules.ini`` beside this file.
"""

import os
import sys
import time
from pathlib import Path

from twisted.application.service import Application
from twisted.internet import reactor

from txmux import MuxError, MuxService

# Before anything is scheduled: timers must not depend on the time of day, which may be set.
reactor.seconds = time.monotonic

rules = os.environ.get("TXMUX_RULES") or Path(__file__).with_name("rules.ini")

application = Application("txmux")
try:
    MuxService.from_file(rules).setServiceParent(application)
except MuxError as error:  # of which twistd would print the traceback
    sys.exit(str(error))
