"""What needs more than txmux itself."""

from __future__ import annotations

from txmux.admin.refused import RefusedError


def needs(what: str) -> RefusedError:
    """Return what to install, where an import has failed.

    Args:
        what: What cannot be had without it.
    """
    return RefusedError(
        501, f"{what}: not installed; pip install 'txmux[admin]', then txmux upgrade"
    )
