"""Matches queries and players of game servers with Valve's Source engine, or with GoldSrc before it.

Four bytes 0xff, then the letter of a query, with what belongs to it: information, the players, the rules, a challenge, an
old ping; or the request for a challenge with which a player begins. What comes once a player has been let in has no such
beginning.
"""

import re

from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.messages import MessageMatcher

_HEADER = b"\xff\xff\xff\xff"
_QUERY = re.compile(
    rb"""
      T Source\ Engine\ Query \0 (?:.{4})?      # information, again with a challenge
    | [UV] .{4}                                 # players, rules
    | W                                         # a challenge for them
    | i \0?                                     # ping
    | q .{4} 0{10} \0                           # a player of Source
    | getchallenge (?:\ steam)? [\n\0]{0,2}     # a player of GoldSrc
    """,
    re.VERBOSE | re.DOTALL,
)


def _read_query(cursor: Cursor) -> dict[str, str]:
    cursor.literal(_HEADER)
    if not _QUERY.fullmatch(cursor.data, cursor.at):
        raise MalformedError
    return {}


source_engine = MessageMatcher(
    "source-engine",
    "game servers with the Source engine or GoldSrc",
    _read_query,
    source='"Server queries" in the Valve Developer Community; CBaseClientState in the Source SDK',
)
