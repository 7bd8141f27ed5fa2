"""Matches the first command of a Redis client.

That is an array of bulk strings, known by the header of the array and of its first string, behind up to two empty lines; or
an inline command: a line of text of at most 1024 bytes that begins with the name of a command in any case. A line that
begins as one of HTTP does (``GET /``), or has the name of such a protocol and a slash in it, is none, so that no web
client goes to Redis, whatever version it has. ``CLIENT`` is followed by one of its own commands; in DICT
(RFC 2229, section 3.6), it is followed by any text. ``HELLO`` is followed by a number, if by anything.
"""

import re

from txmux.classes import frozen
from txmux.interfaces import Peeked, Verdict
from txmux.wire.plain import PlainMatcher

_COMMANDS = frozenset(
    b"""
    ACL APPEND ASKING AUTH BGREWRITEAOF BGSAVE BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS BLMOVE BLMPOP BLPOP
    BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN CLIENT CLUSTER COMMAND CONFIG COPY DBSIZE DEBUG DECR DECRBY DEL
    DISCARD DUMP ECHO EVAL EVALSHA EVALSHA_RO EVAL_RO EXEC EXISTS EXPIRE EXPIREAT EXPIRETIME FAILOVER FCALL
    FCALL_RO FLUSHALL FLUSHDB FUNCTION GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUSBYMEMBER
    GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GEOSEARCHSTORE GET GETBIT GETDEL GETEX GETRANGE GETSET HDEL
    HELLO HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT HKEYS HLEN
    HMGET HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN
    HTTL HVALS INCR INCRBY INCRBYFLOAT INFO KEYS LASTSAVE LATENCY LCS LINDEX LINSERT LLEN LMOVE LMPOP LOLWUT
    LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM MEMORY MGET MIGRATE MODULE MONITOR MOVE MSET MSETNX MULTI
    OBJECT PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PFADD PFCOUNT PFDEBUG PFMERGE PFSELFTEST PING PSETEX
    PSUBSCRIBE PSYNC PTTL PUBLISH PUBSUB PUNSUBSCRIBE QUIT RANDOMKEY READONLY READWRITE RENAME RENAMENX
    REPLCONF REPLICAOF RESET RESTORE RESTORE-ASKING ROLE RPOP RPOPLPUSH RPUSH RPUSHX SADD SAVE SCAN SCARD
    SCRIPT SDIFF SDIFFSTORE SELECT SENTINEL SET SETBIT SETEX SETNX SETRANGE SHUTDOWN SINTER SINTERCARD
    SINTERSTORE SISMEMBER SLAVEOF SLOWLOG SMEMBERS SMISMEMBER SMOVE SORT SORT_RO SPOP SPUBLISH SRANDMEMBER
    SREM SSCAN SSUBSCRIBE STRLEN SUBSCRIBE SUBSTR SUNION SUNIONSTORE SUNSUBSCRIBE SWAPDB SYNC TIME TOUCH TTL
    TYPE UNLINK UNSUBSCRIBE UNWATCH WAIT WAITAOF WATCH XACK XADD XAUTOCLAIM XCLAIM XDEL XGROUP XINFO XLEN
    XPENDING XRANGE XREAD XREADGROUP XREVRANGE XSETID XTRIM ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER
    ZINTERCARD ZINTERSTORE ZLEXCOUNT ZMPOP ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX
    ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE
    ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION ZUNIONSTORE
    """.split()
)
_BEGINNINGS = frozenset(
    command[:length] for command in _COMMANDS for length in range(len(command) + 1)
)
_LONGEST_LINE = 1024
_ARRAY = re.compile(rb"(?:\r\n){0,2}\*[0-9]{1,7}\r\n\$[0-9]{1,9}\r\n")
_ARRAY_BEGINNING = re.compile(
    rb"(?:\r\n)?\r|(?:\r\n){1,2}|(?:\r\n){0,2}\*(?:[0-9]{1,7}(?:\r(?:\n(?:\$(?:[0-9]{1,9}\r?)?)?)?)?)?"
)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_OF_HTTP = re.compile(rb"[A-Z]+ (?:/|https?://)|.*(?:HTTP| (?:RTSP|SIP|ICAP|ICE))/")
_OF_CLIENT = frozenset(
    b"""
    CACHING CAPA GETNAME GETREDIR HELP ID IMPORT-SOURCE INFO KILL LIST NO-EVICT NO-TOUCH PAUSE REPLY SETINFO SETNAME
    TRACKING TRACKINGINFO UNBLOCK UNPAUSE
    """.split()
)
_BEGINNINGS_OF_CLIENT = frozenset(
    command[:length] for command in _OF_CLIENT for length in range(len(command) + 1)
)
_FIRST_BYTES = frozenset(
    b"*\r" + bytes(b for command in _COMMANDS for b in command[:1] + command[:1].lower())
)


@frozen
class _RedisPredicate:
    longest: int = _LONGEST_LINE
    first_bytes: frozenset[int] = _FIRST_BYTES

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return peeked.parsed(_verdict)


def _verdict(data: bytes, earlier: Verdict | None) -> Verdict:
    if earlier in {Verdict.MATCH, Verdict.NO}:
        return earlier
    data = data[:_LONGEST_LINE]
    return _array(data) if data.startswith((b"*", b"\r")) else _inline(data)


def _array(data: bytes) -> Verdict:
    if _ARRAY.match(data):
        return Verdict.MATCH
    return Verdict.NEED_MORE if _ARRAY_BEGINNING.fullmatch(data) else Verdict.NO


def _inline(data: bytes) -> Verdict:
    line, newline, _ = data.partition(b"\n")
    text = line.removesuffix(b"\r")
    line_ends = newline or text != line
    word, space, rest = text.partition(b" ")
    word = word.upper()
    if word not in (_COMMANDS if space or line_ends else _BEGINNINGS):
        return Verdict.NO
    if _CONTROL.search(text) or _OF_HTTP.match(text):
        return Verdict.NO
    if word == b"CLIENT" and (space or line_ends):
        word, space, _ = rest.partition(b" ")
        if word.upper() not in (_OF_CLIENT if space or line_ends else _BEGINNINGS_OF_CLIENT):
            return Verdict.NO
    if word == b"HELLO" and not (rest or b"3")[:1].isdigit():
        return Verdict.NO
    if newline:
        return Verdict.MATCH
    return Verdict.NO if len(data) == _LONGEST_LINE else Verdict.NEED_MORE


redis = PlainMatcher(
    "redis",
    "Redis (RESP arrays and inline commands)",
    _RedisPredicate(),
    source='"Redis serialization protocol specification", redis.io',
)
