"""All items that need attention, but those of features: the one place that says what they are.

``script/docs`` writes the tables of the docs from it, and ``docs/alerts.py`` the alerts of ``examples/prometheus``.
"""

from collections import Counter
from collections.abc import Iterable
from functools import partial

import attrs

from txmux.rules.installed import rows
from txmux.telemetry.attention import MEMORY_RAN_OUT, AttentionItem, AttentionRow, Level

# fmt: off

# Who can raise it.
NO_SOURCE = "none: your files, your commands, and what txmux asks of others"
_ASKED = "none: where clients choose names, the name server is also asked about itself"
_ONE = "1; they are notes, or a warning of a queue whose clients try again"
_OF_MANY = "3: those of the two busiest sources do not count"
_FULL = "1, without [`max_connections_per_source`](limit-clients.md). It is true then: the others wait"
FAULT = "1, and then it is a fault of txmux or of a plugin, whatever a client sends"

# Why there is no alert.
_PLANNED = "it is planned work"
_ONE_CLIENT = "one client can do that"

# What to do.
MORE_ROOM = "raise the limit (LimitNOFILE=, ulimit -n) or set max_connections"
_MEND = "correct the file, which is read again by itself; txmux check says what is wrong with it"
_LIMIT = "see who has them: txmux clients; keep one from taking all: max_connections_per_source"
MORE_QUEUE = "see who they are: txmux clients; add workers, which accept faster, or let more clients wait: sysctl net.core.somaxconn, and a backlog in the endpoint"
SEE_LOG = "see the service's log for what keeps workers from it"

SELF = "what-the-service-says-of-itself"
COMMON = "TxmuxAttentionCritical", "TxmuxAttention"
"""For all items that have no alert of their own, or for which it does not fire."""

_IN_SERVERS = "?backend={backend}#servers"

_backend = partial(
    AttentionRow, what="backend", text="backend {backend}: {text}", cause="{why}", do="txmux servers {backend}{advice}", link=_IN_SERVERS, subject="{backend}", section="backend {backend}", is_logged=True,
    runbook="a-server-is-down", sources="as its servers, above")
NO_SERVER = _backend(
    level="critical", when="no server of a backend in use can serve", alerts=["TxmuxBackendWithoutServer"])
FEWER_SERVERS = _backend(
    level="warning",
    when="some of its servers cannot: down, ejected, failing, silent, without an address; or none can, and its clients go to its fallback or are held, or it is not in use",
    alerts=("TxmuxServerFailing", "TxmuxServerDown"))
SERVERS_TAKEN_OUT = _backend(level="note", when="an operator, or `down` in the rules, has taken all its servers out", alerts=_PLANNED)

SERVER_DOUBTED = attrs.evolve(
    SERVERS_TAKEN_OUT, text="backend {backend}: {server} fails its last clients", do="txmux servers {backend}; see its own log", subject="{backend} {server}",
    is_logged=False, sources=_ONE, alerts=_ONE_CLIENT, runbook="only-one-side-uses-the-proxy-protocol", when="a server fails its last clients: it has reset all of one or two sources, or their TLS failed, or it closed all first, without a byte, or answered all, and txmux's own attempt, by HTTP's 400, as one that expects no PROXY header")

_accept = partial(AttentionRow, what="accept", link="#listeners", subject="{name}", section="listen {name}", runbook="clients-cannot-connect")
CANNOT_ACCEPT = _accept(
    level="critical", text="listener {name}: cannot accept", cause="{why}", do=MORE_ROOM, is_logged=True, sources=_OF_MANY, alerts=["TxmuxCannotAccept"],
    when="a listener cannot accept: no worker has descriptors or memory for more clients")
NOT_OPEN = _accept(
    level="critical", text="listener {name}: {why}", do="{do}", sources=NO_SOURCE, alerts=["TxmuxCannotAccept"],
    when="its UNIX socket cannot be reached: another program has put a file in its place, or its folder is gone")
SOME_CANNOT_ACCEPT = _accept(
    level="warning", text="listener {name}: one worker cannot accept connections; the others can", cause="{why}", do=MORE_ROOM, is_logged=True, sources=_FULL, alerts=COMMON,
    when="some workers cannot accept its clients")
TAKEN_BY_FEW = _accept(
    level="warning", text="listener {name}: cannot accept", cause="{why}", do=_LIMIT, is_logged=True, sources=_FULL, alerts=COMMON,
    when="one or two sources have most connections, so it cannot accept")
QUEUE_OVERFLOWED = _accept(  # one client can fill it, and the others try again
    level="warning", text="listener {name}: the queue of {line} has overflowed", cause="{attempts} to connect dropped within a minute{rate}", do="{do}",
    subject="queue {name} {line}", sources=_ONE, alerts=COMMON, when="its full queue has dropped attempts to connect within the last minute")
_busy = partial(
    _accept, text="a process is busy with new clients, so that they wait", cause="{rate:,.0f} connections and flows a second{who}", do="{do}", link="#clients", subject="a process", section="")
BUSY_WITH_MANY = _busy(
    level="warning", sources="3", alerts=COMMON, when="new connections and flows of several sources keep a process busy: how many a second, and who is first")
PAUSED = _accept(level="note", text="listener {name}: {why}", do="txmux resume {name}", is_logged=True, sources=NO_SOURCE, alerts=_PLANNED, when="an operator has paused it")
BUSY_WITH_FEW = _busy(level="note", sources=_ONE, alerts=_ONE_CLIENT, when="one or two sources keep a process busy")

_ports = partial(
    AttentionRow, what="ports", text="backend {backend}: no source port is left towards {server}", cause="{why}: {connections} failed", link=_IN_SERVERS,
    subject="{backend} {server}", section="backend {backend}", is_logged=True, runbook="clients-cannot-connect")
NO_SOURCE_PORT = _ports(
    level="critical", do="name more addresses in 'source', or widen net.ipv4.ip_local_port_range", sources=_OF_MANY,
    when="no source port is left towards a server; until a minute without such a failure, or a connection five seconds after the last", alerts=["TxmuxNoSourcePort"])
PORTS_TAKEN_BY_FEW = _ports(level="warning", do=_LIMIT, sources=_FULL, alerts=COMMON, when="the same, and one or two sources have most of them")
_handover = partial(
    AttentionRow, what="handover", text="handover:{path}: no server takes the sockets of clients", cause="{why}: {clients} closed", do="see whether the server that listens there runs, and as which user",
    link="#ends", subject="{path}", runbook="a-server-is-down", alerts=COMMON)
NOT_HANDED_OVER = _handover(
    level="critical", sources="3", when="a server has not taken the [socket](rules.md#sockets-that-are-handed-over) of any of its last clients, of three sources or more; until it takes one, or a minute after the last")
FEW_NOT_HANDED_OVER = _handover(level="warning", sources="1", when="the same, of one or two sources")
FEW_DESCRIPTORS = AttentionRow(
    what="descriptors", level="warning", text="file descriptors are running out: {opened} of {most} are open", do=MORE_ROOM, subject="share", runbook="clients-cannot-connect",
    sources=_FULL, when="80 % of the descriptors of a process are open", alerts=["TxmuxDescriptorsShort"])

_worker = partial(AttentionRow, what="workers", link="#workers", runbook="a-worker-was-started-again", sources=FAULT, alerts=COMMON)
NO_WORKER_SERVES = _worker(level="critical", text="no worker serves", do=SEE_LOG, subject="all", when="every worker has ended, and new ones end or fail to start")
NO_WORKER_ANSWERS = _worker(
    level="critical", text="no worker answers", cause="each that does nothing for ten seconds, though it could run, is replaced", do=SEE_LOG, subject="all",
    when="every worker is stuck: it could run, and does nothing")
WORKER_SILENT = _worker(
    level="warning", text="worker {number} does not answer", subject="worker {number}", when="one does not do its work",
    do="it is replaced if it does nothing for 10 s though it could run; otherwise end it: kill -KILL {pid}")
ANSWER_UNUSABLE = _worker(
    level="warning", text="what {worker} measures is missing", cause="{why}", subject="unusable {worker}",
    do="report it with this line, since this list and /metrics lack what it would say of certificates, limits and logs",
    when="an answer cannot be used: other items may be missing")
WORKER_REPLACED = _worker(
    level="warning", text="{name} {verb} {times} within five minutes", cause="{how}", do="see the log for what it logged before it ended", subject="replaced {number}",
    is_logged=True, when="it or the starter was replaced three times within five minutes")
CALLS_REFUSED = _worker(
    level="warning", text="worker {number}: the sandbox has refused system call{s} {names}", subject="refused calls", is_logged=True,
    do="see which plugin makes it; txmux itself does not, so a worker may have been taken over: restart the service",
    when="one was refused a system call by the [sandbox](rules.md#sandbox)")
WORKER_ENDED = _worker(
    level="warning", text="worker {number} {how}{more}", subject="ended", is_logged=True,
    do="another one serves; see the log for what it logged before it ended, and report it unless somebody has killed it",
    when="one has ended, or was killed, within ten minutes: how, and with how many connections")
WORKERS_KILLED = _worker(
    level="warning", text=f"the kernel has killed {{workers}} with {{their}} connections: {MEMORY_RAN_OUT}", cause="{how}", subject="memory", is_logged=True,
    do="allow more (MemoryMax=, the limit of the container), set max_connections, or have fewer workers",
    when="the kernel has killed one within ten minutes for lack of memory")

HELPER_GONE = AttentionRow(
    what="helper", level="critical", text="{text}", do="{do}", subject="helper", is_logged=True, runbook="the-helper-has-ended", sources=NO_SOURCE,
    when="the helper of [`user`](rules.md#user-and-group) has ended, or is halted", alerts=["TxmuxHelperEnded"])

_log = partial(
    AttentionRow, what="log", level="warning", cause="{why}", subject="{name}", is_logged=True, runbook="there-is-nothing-in-the-log",
    sources="none: a disk that is full; limit the log's size", alerts=["TxmuxLogLinesLost"])
LINES_LOST = _log(
    text="{name}: {lines} lost", do="make room on its disk, or see why what reads it does not keep up", when="a log cannot be written: how many lines are lost, and why")
LOG_NOT_OPENED = _log(text="{name}: cannot be opened", do="let the service write to it, then txmux reload", when="its file cannot be opened")

_source = partial(
    AttentionRow, what="sources", level="warning", is_logged=True, runbook="what-txmux-asks-of-others-fails", sources=_ASKED, alerts=["TxmuxSourceFails"])
SOURCE_FAILS = _source(
    text="{name}: no good answer for {age}; {effect}", cause="{why}", do="see whether it runs and this machine reaches it; it is asked again by itself",
    subject="{outage}",
    when="one of `sources` has had no good answer for over a minute, Redis for three seconds: with others that ask the same server, and names of servers that cannot be looked up")
FILE_UNREAD = _source(
    text="{text}", do="see what txmux check says, then txmux reload",
    when="a new worker could not read a database of places or a file of `tunnel_users`, or open a port with its own certificate")
NAME_NOT_FOUND = AttentionRow(
    what="names", level="warning", text="backend {backend}: {server}: addresses {age} old{more}", cause="{why}", link=_IN_SERVERS,
    do="the last addresses stay in use; see whether what is asked knows it: its name servers ('resolvers', or /etc/resolv.conf), or Consul", subject="{backend} {server}", section="backend {backend}", is_logged=True,
    runbook="what-txmux-asks-of-others-fails", sources=_ASKED, alerts=COMMON, when="the name of a server cannot be looked up again")

_certificate = partial(
    AttentionRow, what="certificates", text="{what} of {where} {name} {when}", do="{verb} it: txmux reads the file again by itself", link="#certificates",
    subject="{where} {name} {what} {ends:.0f}", section="{where} {name}", runbook="clients-warn-of-the-certificate", sources=NO_SOURCE)
CERTIFICATE_ENDED = _certificate(
    level="critical", when="one has ended: a certificate, one of its chain, the only authority of `tls_client_ca` or `tls_ca`, or a revocation list; or the only authority has no list that it has signed",
    alerts=["TxmuxCertificateEnded"])
CERTIFICATE_NOT_YET = _certificate(
    level="critical", do="see whether the clock of this machine is right, or put back the one before: txmux reads the file again by itself", when="one is not valid yet", alerts=["TxmuxCertificateEnded"])
CERTIFICATE_ENDS = _certificate(
    level="warning", when="one ends within 14 days, a revocation list within the last third of its time; or one of several authorities of clients is not valid, or has no list",
    alerts=["TxmuxCertificateEnds"])

renewal = partial(
    AttentionRow, what="renewal", link="#certificates", is_logged=True, runbook="clients-warn-of-the-certificate", sources=NO_SOURCE, alerts=["TxmuxCertificateUnusable"])
CERTIFICATE_UNREADABLE = renewal(level="warning", text="{text}", do=_MEND, section="{section}", when="a certificate or a key cannot be read again, or that of a [unit](rules.md#units) cannot be used yet")

LIMIT_REFUSES = AttentionRow(
    what="limits", level="note", text="listener {listener} refuses clients at {at}", cause="{refused:,} refused in {span}{who}", do="{do}", link="#clients",
    subject="{listener} {limit}", section="listen {listener}", runbook="a-client-is-refused", sources=_ONE, alerts="`TxmuxClientsRefused` is for those of many sources",
    when="a limit of a listener refuses clients: how many in the last half minute, and who is first")

HEADERS_WRONG = attrs.evolve(
    LIMIT_REFUSES, text="listener {listener} closes clients without a valid PROXY header", cause="{refused:,} closed in {span}", link="#ends",
    do="have the proxy in front send the header, or take it out of accept_proxy_from; the fact proxy_error in the access log says what is wrong",
    runbook="only-one-side-uses-the-proxy-protocol", alerts=_ONE_CLIENT, when="it closes clients of `accept_proxy_from` that send no valid PROXY header: how many in that time")

_hold = partial(AttentionRow, what="hold", level="note", link=_IN_SERVERS, subject="{backend}", section="backend {backend}", is_logged=True, runbook="it-is-slow", sources=_ONE)
# How many wait may be one client's doing; that no server is up is an item of its own.
CLIENTS_WAIT = _hold(text="backend {backend}: {clients} for a server", do="txmux servers {backend}", alerts=_ONE_CLIENT, when="clients wait for a server")
CLIENTS_HELD = _hold(
    text="backend {backend}: held by an operator{left}: {clients}", do="txmux release {backend}", alerts=_PLANNED, when="an operator holds a backend's clients")

RELOAD_FAILED = AttentionRow(
    what="reload", level="warning", text="the last reload {outcome}", cause="{why}", do="{do}", link="#rules", subject="reload", is_logged=True, runbook="a-reload-fails",
    sources=NO_SOURCE, when="the last reload failed, or is in force but not complete", alerts=["TxmuxReloadFailed"])
UNIT_NOT_TAKEN = AttentionRow(
    what="unit", level="warning", text="{unit} is not taken: {stays}", cause="{why}", do="mend what is wrong there, then txmux reload, which names what is left; a port is tried again by itself", link="#rules",
    subject="{unit}", section="unit {unit}", runbook="a-reload-fails", sources=NO_SOURCE, alerts=COMMON,
    when="a [unit](rules.md#units) has an error, contradicts what is before it, or has a port that cannot be opened")
BACKEND_MISSING = AttentionRow(
    what="unit", level="warning", text="{where}: {text}", do="have its owner bring it back, or name another backend", link="#rules", subject="{where}", is_logged=True,
    runbook="a-client-goes-to-the-wrong-server", sources=NO_SOURCE, alerts=COMMON, when="the operator's rules name a backend that only others' files bring, and none has")
_upgrade = partial(AttentionRow, what="upgrade", runbook=SELF, sources=NO_SOURCE)
UPGRADE_FAILED = _upgrade(
    level="warning", text="the last upgrade failed, this process keeps serving", cause="{why}", do="txmux upgrade, once the cause is mended", subject="failed", is_logged=True,
    alerts=COMMON, when="the last upgrade failed")
ORPHANED = _upgrade(
    level="warning", text="{connections} {go} on in workers whose supervisor has ended", do="they end by themselves; see the log for why the supervisor has ended",
    subject="orphaned", alerts=COMMON, when="connections stayed in workers whose supervisor has ended")
STAYED = _upgrade(
    level="note", text="{connections} {stay} in workers that an upgrade has replaced", link="#connections", subject="stayed", is_logged=True, alerts=_PLANNED,
    do="they end by themselves, or after drain_timeout; their counters and limits still apply", when="connections stayed in workers of the replaced process")
_service = partial(AttentionRow, what="service", is_logged=True, runbook=SELF, sources=NO_SOURCE)
SHUTTING_DOWN = _service(level="note", text="{text}", do="unless that is meant, start it again", subject="service", alerts=_PLANNED, when="it is shutting down")
STEP_FAILS = _service(
    level="warning", text="it cannot {step}", cause="{why}", do="it is tried again; see the log for what is lacking", subject="step {step}", alerts=COMMON,
    when="a recurring task has failed, as for lack of memory or descriptors: what, since when, and why")
RULES_CHANGED = AttentionRow(
    what="rules", level="note", text="{path}: the files have changed since they were read", do="txmux check, then txmux reload", link="#rules", subject="files",
    runbook="a-client-goes-to-the-wrong-server", sources=NO_SOURCE, alerts=_PLANNED, when="files of the rules have changed, and were not read since")
_secret = partial(AttentionRow, what="token", text="{text}", runbook=SELF, sources=NO_SOURCE)
TOKENS_UNREADABLE = _secret(level="warning", do=_MEND, subject="file", alerts=COMMON, when="the file of `admin_tokens` cannot be read, or has an error")
SECRET_READABLE = _secret(
    level="note", do="{do}", is_logged=True, alerts="`txmux check` says it before", when="every user can read or replace a file with a secret; or every user, or a group, can change a file of the rules")
# fmt: on

ROWS = tuple(value for value in vars().values() if isinstance(value, AttentionRow))


def every_row() -> tuple[AttentionRow, ...]:
    return (*ROWS, *rows(AttentionRow))


def attention_counts(items: Iterable[AttentionItem]) -> Counter[tuple[str, Level]]:
    """Count items by topic and level; those that may occur and do not are 0."""
    counts = Counter({(row.what, row.level): 0 for row in every_row()})
    counts.update((item.what, item.level) for item in items)
    return counts
