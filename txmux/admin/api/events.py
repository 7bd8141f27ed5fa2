"""``/api/events``: what happens, as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from txmux.admin.resource import Answer, Query, Resource

if TYPE_CHECKING:
    from txmux.admin.resource import Stream

_MOST_WAITING = 256 * 1024
"""Bytes that a client may be behind before it is cut off."""


async def _events(query: Query) -> Answer:
    def begin(stream: Stream) -> None:
        def tell(event: dict[str, Any] | None) -> None:
            if stream.waiting() > _MOST_WAITING:
                stream.abort()
            elif event is None:
                stream.write(b": still here\n\n")
            else:
                data = json.dumps(event, ensure_ascii=True)
                stream.write(f"event: {event['event']}\ndata: {data}\n\n".encode())
                if event["event"] == "stop":
                    stream.finish()

        stream.on_end(query.control.events.subscribe(tell))

    return Answer(type="text/event-stream", stream=begin)


RESOURCES = (Resource("GET", "/api/events", _events),)
