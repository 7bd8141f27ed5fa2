"""What not every service needs: each capability is a folder here, with its keys, its texts and its code.

A folder can be deleted. `txmux.rules.optional` lists them, and nothing else names or imports them; `txmux.rules.feature` says what one adds to
the core.
"""
