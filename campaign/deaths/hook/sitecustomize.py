"""Halts a process of txmux at a moment that the environment names; `campaign.deaths.moments` says how.

Python imports this when it starts with this folder on its path; the product itself knows nothing of it.
"""

import json
import os
import signal
import sys
from typing import Any

NAME, IS_NEW = "TXMUX_MOMENT", "TXMUX_MOMENT_NEW"


def _watch(kind: str, act: str, count: int, process: str, armed: str) -> None:
    from txmux.net.channel.channel import Channel  # noqa: PLC0415 - only in processes of txmux
    from txmux.net.channel.descriptorstream import DescriptorStream  # noqa: PLC0415

    supervisor = os.getpid() if "txmux.processes.forking" not in str(sys.orig_argv) else 0
    if "TXMUX_PREDECESSOR" in os.environ:
        os.environ[IS_NEW] = "1"
    is_new = IS_NEW in os.environ
    left = [count]

    def happens(its_kind: str, its_act: str) -> None:
        role = "supervisor" if os.getpid() == supervisor else "worker"
        named = f"{'new' if is_new else 'old'} {role}"
        if kind == "*" and os.path.exists(armed):  # noqa: PTH110 - without what pathlib imports
            os.write(2, f"MOMENT,{its_kind},{its_act},{named}\n".encode())
        elif (
            (its_kind, its_act) == (kind, act)
            and process in {"", role, named}
            and os.path.exists(armed)  # noqa: PTH110 - as above
        ):
            left[0] -= 1
            if not left[0]:
                signal.raise_signal(signal.SIGSTOP)

    send, receive = DescriptorStream.send, Channel._line_received

    def sent(self: Any, data: bytes, *more: Any) -> None:
        message = json.loads(data)
        asked, answers = _questions(self.protocol)
        if message["kind"] == "answer":
            # What the old process asked first was not received over the channel.
            happens(answers.pop(message["to"], "begin"), "answers")
        else:
            happens(message["kind"], "sends")
            asked[message.get("ask")] = message["kind"]
        send(self, data, *more)

    def received(self: Any, line: bytes) -> None:
        message = json.loads(line)
        asked, answers = _questions(self)
        if message["kind"] == "answer":
            happens(asked.pop(message["to"], ""), "is answered")
        else:
            answers[message.get("ask")] = message["kind"]
            happens(message["kind"], "receives")
        receive(self, line)

    DescriptorStream.send, Channel._line_received = sent, received  # type: ignore[assignment,method-assign]


def _questions(channel: Any) -> Any:
    """Give the kinds of a channel's open questions by their numbers: those of this process, and those to it."""
    if not hasattr(channel, "questions"):
        channel.questions = {}, {}
    return channel.questions


if NAME in os.environ and "txmux" in str(sys.orig_argv):
    _kind, _act, _count, _process, _armed = os.environ[NAME].split(",")
    _watch(_kind, _act, int(_count), _process, _armed)
