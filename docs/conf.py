"""How Sphinx builds the documentation; ``script/docs`` runs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from txmux import __version__

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

sys.path.insert(0, str(Path(__file__).parent))

project = "txmux"
author = "The txmux maintainers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "diagrams"]
exclude_patterns = ["_build"]
default_role = "code"
myst_heading_anchors = 4

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_title = "txmux"

autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
napoleon_use_ivar = True

# What others define: where it is not told from which module it comes, zope interfaces begin with I.
nitpick_ignore_regex = [
    (r"py:.*", r"(twisted|collections|ipaddress|pathlib|socket)\..*"),
    (r"py:.*", r"I[A-Z]\w+|<InterfaceClass .*"),
    (
        r"py:.*",
        r"(txmux\.[\w.]+\.)?(_BuiltIn|AdminUser|AllowedNames|Banned|Deferred|Failure|Iterable|Logged|Mapping|NamePatterns|OnOver|Path|ProxyClient|Reachable|RelayRates|KernelSide|Section|Step|Store|T|TLSMinimum|DynamicNetworks|ZoneInfo)",
    ),
]


def setup(app: Sphinx) -> None:
    """Register the hooks below."""
    app.connect("autodoc-process-signature", _no_signature_of_protocols)
    app.connect("missing-reference", _by_last_name)


def _no_signature_of_protocols(*event: Any) -> tuple[str, None] | None:
    signature = event[5]
    return ("", None) if signature == "(*args, **kwargs)" else None


def _by_last_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element
) -> Element | None:
    # Annotations and "Raises" name the classes of txmux as its code does: without their modules.
    if node.get("refdomain") != "py":
        return None
    node["refspecific"] = True
    kind, target = node["reftype"], node["reftarget"]
    python = env.get_domain("py")
    return python.resolve_xref(env, node["refdoc"], app.builder, kind, target, node, content)
