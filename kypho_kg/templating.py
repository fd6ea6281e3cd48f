"""Pages from templates: the only importer of Jinja2. What a template is given is escaped."""

from __future__ import annotations

import functools
import re

import jinja2


@functools.cache
def template(name: str) -> jinja2.Template:
    """A template of ``kypho_kg/templates`` by the name of its file; what it asks for and does not get is an error."""
    return _environment().get_template(name)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kypho_kg"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["web"] = lambda url: url if re.match(r"https?://", url) else ""
    environment.filters["n"] = lambda n: f"{n:,}"
    return environment


def css_text(text: str) -> str:
    """Text as the inside of a string of CSS: whatever is no plain letter or digit by its number."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\{ord(c):06x}" for c in text)
