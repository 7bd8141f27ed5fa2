"""Regular expressions for streams: read once, then followed byte by byte in linear time.

A pattern is parsed by `re`'s own parser (``syntax``), becomes an automaton that knows how far each of its states is from
a match, and is run as a deterministic one, built as bytes ask for it (``automaton``): nothing backtracks.
"""

from txmux.detection.regex.automaton import Progress, StreamPattern, compile_pattern, counted
from txmux.detection.regex.syntax import PatternError

__all__ = ["PatternError", "Progress", "StreamPattern", "compile_pattern", "counted"]
