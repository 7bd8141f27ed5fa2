"""Matches the first message of an HL7 version 2 client in the framing of MLLP.

The start of a block, then the segment that begins a message, a batch or a file of batches, and the character that parts
its fields, which is neither a letter nor a digit.
"""

from txmux.wire import Pattern, PlainMatcher

hl7 = PlainMatcher(
    "hl7",
    "HL7 version 2 over MLLP, by the first segment",
    Pattern(rb"\x0b(?:MSH|BHS|FHS)[!-/:-@\[-`{-~]"),
    source='HL7 "Minimal Lower Layer Protocol", release 2; HL7 2.5.1, sections 2.5.4 and 2.10.3',
)
