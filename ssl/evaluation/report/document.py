"""The HTML document around the sections of the report: style, scripts, and a policy that allows nothing from outside."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from wildfern.ssl.evaluation.report.parts import escape
from wildfern.ssl.evaluation.report.style import STYLE

FOLDER = Path(__file__).parent
PAGE_SCRIPTS = ("theme.js", "tables.js")
CHART_SCRIPTS = ("uplot.min.js", "charts.js")
MAP_SCRIPTS = ("colors.js", "points.js", "map_view.js", "map.js")


def document(title: str, header: str, body: str) -> str:
    """The page with this title, not escaped, and these parts as HTML; scripts of what it does not have are left out."""
    names = list(PAGE_SCRIPTS)
    styles = [STYLE, asset("page.css")]
    if "<figure class=chart>" in body:
        names += CHART_SCRIPTS
        styles.insert(0, asset("uplot.min.css"))
    if "<div class=segmentation>" in body:
        styles.append(asset("segmentation.css"))
    if "<figure class=map>" in body:
        names += MAP_SCRIPTS
    scripts = "".join(_script(name) for name in names)
    allowed = " ".join(_hash(asset(name)) for name in names)
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} – wildfern</title><style>{''.join(styles)}</style></head>\n"
        f"<body><a class=skip href='#content'>Skip to the scores and charts</a><main>{header}{_contents(body)}"
        f"<div id=content>{body}</div></main>{scripts}</body></html>\n"
    )


def _contents(body: str) -> str:
    """Links to the sections."""
    found = re.findall(r'<section id="([a-z0-9-]*)"><h2>(.*?)</h2>', body)
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in found)
    return f"<nav aria-label='Sections of the report'><ol>{links}</ol></nav>" if len(found) > 2 else ""


def _script(name: str) -> str:
    notice = ""
    if name == "uplot.min.js":
        notice = f"<!-- {asset('uplot.txt')} -->"
    return f'{notice}<script id="report_{name.partition(".")[0]}">{asset(name)}</script>\n'


@cache
def asset(name: str) -> str:
    """The text of a file that is installed beside this one."""
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
