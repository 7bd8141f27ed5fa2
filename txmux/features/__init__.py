"""What not every service needs: each capability is a folder here, with its keys, its texts and its code.

A folder can be deleted. `txmux.installed` lists them, and nothing else imports them; see `txmux.features.feature`.
"""
