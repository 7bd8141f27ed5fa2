"""What is counted of cancel requests."""

from txmux.telemetry.counting.counter_rows import CounterByWord

# fmt: off
REQUESTS = CounterByWord(
    ("sent", "failed"), "cancel_requests_total", "Cancel requests of PostgreSQL that were sent to a server, or for which it could not be connected.",
    "Those that [go to several](matchers.md#postgres). Absent before the first one.", label="result", cell="cancel", group="listener",
    chosen=lambda by_word: by_word if any(by_word.values()) else ())
ROWS = (REQUESTS,)
# fmt: on
