"""A page in one file that asks the network for nothing: template, style, script and data together."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pseudolabel.report import charts


def render_page(template: str, facts: Mapping[str, Any], data: Any) -> str:
    """The HTML of a page.

    Args:
        template: `NAME` of `templates/NAME.html`, `NAME.css` and `NAME.js`.
        facts: what the template names; every value is escaped.
        data: what the script reads, plain JSON values.
    """
    environment = Environment(
        loader=PackageLoader("pseudolabel.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style, script = (_source(f"{template}.{kind}") for kind in ("css", "js"))
    return environment.get_template(f"{template}.html").render(
        **facts, charts=charts, style=Markup(style), script=Markup(script),
        style_hash=_csp_hash(style), script_hash=_csp_hash(script), data=script_json(data),
    )  # fmt: skip


def script_json(data: Any) -> Markup:
    """JSON that may stand in a `script` element: nothing in it ends the element or begins a comment."""
    text = json.dumps(
        data, separators=(",", ":"), allow_nan=False
    )  # ASCII: no line separator of Unicode is left either
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _source(name: str) -> str:
    return (resources.files("pseudolabel.report") / "templates" / name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    """What a content security policy calls a style or a script that is allowed."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
