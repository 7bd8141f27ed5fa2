"""``/api/connections`` lists live connections, and ends them; ``/api/clients`` lists where they come from."""

from collections.abc import Sequence

from txmux.admin.api.openapi import Schema, body, schema_of
from txmux.admin.encoding import BY_NAME, incomplete, link_to_next, listed
from txmux.admin.guard import RefusedError
from txmux.admin.resource import ApiAnswer, Query, ResourceList, check_names, only_values
from txmux.control.clients import MOST_SOURCES
from txmux.control.connections import (
    end_connections,
    find_connection,
    list_clients,
    list_connections,
)
from txmux.control.filters import EVERY, Filters, Page, is_identity, read_limit
from txmux.telemetry.documents import (
    ClientDocument,
    Closed,
    ConnectionDocument,
    ExplainedConnectionDocument,
    LiveState,
)
from txmux.telemetry.formatting import plural

_TEXT = Schema(type="string", minLength=1)
FILTER_SCHEMAS = {
    **dict.fromkeys(("listener", "route", "backend", "server"), _TEXT),
    "client": Schema(type="string", description="a network or an address, or unix"),
    "state": schema_of(LiveState),
    "older": Schema(
        type="string", pattern="^[0-9]{1,6}(ms|s|m|h|d)$", description="a duration: 30s, 1h"
    ),
}
_PAGE = {**BY_NAME, "after": Schema(type="string", pattern="^[0-9a-f]{1,32}-[0-9a-f]{1,32}$")}

RESOURCES = ResourceList()


@RESOURCES.get(
    "/api/connections",
    "live connections",
    list[ConnectionDocument],
    parameters={**FILTER_SCHEMAS, **_PAGE},
    may_lack=True,
)
async def _list(query: Query) -> ApiAnswer:
    words = only_values(query.parameters)
    page = Page.read(words)
    filters = Filters.read({k: v for k, v in words.items() if k not in {"limit", "after"}})
    listing = await list_connections(query.control, filters, page)
    is_full = len(listing) == page.limit
    link = link_to_next("/api/connections", words, listing[-1]["id"]) if is_full else {}
    return await listed(listing, link)


@RESOURCES.get(
    "/api/connections/{id}",
    "one live connection, and how it was decided",
    ExplainedConnectionDocument,
    may_lack=True,
)
async def _one(query: Query) -> ApiAnswer:
    listing = await find_connection(query.control, _identity(query))
    for row in listing:
        return ApiAnswer.json(row, headers=incomplete(listing.missing))
    raise _not_found(listing.missing)


@RESOURCES.change("/api/connections/{id}/close", "end a connection", Closed)
async def _close_one(query: Query) -> ApiAnswer:
    count, missing = await end_connections(query.control, EVERY, _identity(query))
    if not count:
        raise _not_found(missing)
    return _closed(count)


@RESOURCES.change(
    "/api/connections/close",
    "end all connections that match the filters",
    Closed,
    takes=body(FILTER_SCHEMAS, minProperties=1),
    checks_body=False,  # filters are read as those of a query
)
async def _close(query: Query) -> ApiAnswer:
    words = query.body
    if not words:
        raise RefusedError(400, 'give at least one filter, for example {"backend": "web"}')
    for name, value in words.items():
        if not isinstance(value, str):
            raise RefusedError(400, f"{name}: must be a text, as in a query")
    return _closed(*await end_connections(query.control, Filters.read(words)))


def _closed(count: int, missing: Sequence[str] = ()) -> ApiAnswer:
    changes = [f"{plural(count, 'connection')} ended", *(f"not yet: {line}" for line in missing)]
    more = {"incomplete": [*missing]} if missing else {}
    return ApiAnswer.done("; ".join(changes), closed=count, **more)


def _identity(query: Query) -> str:
    identity = query.names["id"]
    if identity == "close":
        raise RefusedError(405, "use POST for this path", (), {"Allow": "POST"})
    if not is_identity(identity):
        raise _not_found()
    return identity


def _not_found(missing: Sequence[str] = ()) -> RefusedError:
    why = "no live connection has this ID; the access log has those that have ended"
    if missing:
        why = f"{why}; or it is one of a worker without an answer: {'; '.join(missing)}"
    return RefusedError(404, why, (), incomplete(missing))


@RESOURCES.get(
    "/api/clients",
    "the sources with the most connections",
    list[ClientDocument],
    parameters={"limit": Schema(type="integer", minimum=1, maximum=MOST_SOURCES)},
    may_lack=True,
)
async def _clients(query: Query) -> ApiAnswer:
    words = only_values(query.parameters)
    check_names(words, ("limit",))
    return await listed(await list_clients(query.control, read_limit(words, 100, MOST_SOURCES)))
