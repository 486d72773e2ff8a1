"""One self-contained HTML page: the pictures are inside it, and it has no scripts and no links to anything outside.

Everything that comes from data (class names, paths, values) is escaped, and the page's content security policy forbids
scripts and requests.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape as escape_html

from PIL import Image

from pipelines.printable import printable

LIMIT = 5_000_000  # the largest size of a page, in bytes
_LARGE = 350_000  # bytes of a PNG above which the page contains it as JPEG, if that is smaller

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #fff; --ink: #1c1d1f; --soft: #5b6067; --line: #dcdfe3;
  --accent: #2458a6; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171a; --card: #1d2024; --ink: #e6e7e9; --soft: #a2a8b0; --line: #33383f; --accent: #8ab4f8; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif;
  overflow-wrap: break-word; }
main, header { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 1.7rem; margin: 0 0 4px; }
h2 { font-size: 1.25rem; margin: 0 0 6px; }
a, summary { color: var(--accent); }
.sub { color: var(--soft); margin: 0 0 14px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; border-block: 1px solid var(--line); padding: 8px 0; }
section { margin: 34px 0; }
section > p { max-width: 76ch; margin: 0 0 12px; }
.pictures { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; margin-bottom: 12px; }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 8px; overflow: hidden;
  max-width: 100%; }
figure img { display: block; max-width: 100%; height: auto; padding: 8px; }
figcaption { background: var(--card); color: var(--soft); border-top: 1px solid var(--line); padding: 8px 12px;
  font-size: .9rem; }
.scroll { overflow-x: auto; margin-bottom: 12px; }
table { border-collapse: collapse; font-size: .92rem; background: var(--card); }
th, td { text-align: left; padding: 5px 12px; border: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td { font-variant-numeric: tabular-nums; }
details { margin: 12px 0; }
summary { cursor: pointer; margin-bottom: 6px; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Picture:
    """A PNG, the name of its file, and its caption."""

    name: str
    png: bytes
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading for each column; folded away behind `summary`, if that is not empty."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    summary: str = ""


@dataclass(frozen=True)
class Section:
    """A section of the page: a title, a paragraph, pictures and tables."""

    title: str
    text: str = ""
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()


def as_picture(name: str, image: Image.Image, caption: str) -> Picture:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return Picture(name, buffer.getvalue(), caption)


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the complete page.

    Raises:
        ValueError: it would be larger than LIMIT.
    """
    anchors = [(f"s{number}", section) for number, section in enumerate(sections)]
    nav = "".join(f'<a href="#{anchor}">{escape(section.title)}</a>' for anchor, section in anchors)
    body = "".join(_section(anchor, section) for anchor, section in anchors)
    text = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>"
        f'<header><h1>{escape(title)}</h1><p class="sub">{escape(subtitle)}</p><nav>{nav}</nav></header>'
        f"<main>{body}</main></body></html>\n"
    )
    if len(text.encode()) > LIMIT:
        raise ValueError(f"the page would take {len(text.encode()) / 1e6:.1f} MB; give smaller --images or --queries")
    return text


def escape(text: str) -> str:
    """Return text of any origin as HTML that displays it literally and can be encoded as UTF-8."""
    return escape_html(printable(text))


def _section(anchor: str, section: Section) -> str:
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    pictures = "".join(_figure(picture) for picture in section.pictures)
    pictures = f'<div class="pictures">{pictures}</div>' if pictures else ""
    tables = "".join(_table(table) for table in section.tables)
    return f'<section id="{anchor}"><h2>{escape(section.title)}</h2>{text}{pictures}{tables}</section>\n'


def _figure(picture: Picture) -> str:
    kind, data = "png", picture.png
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        if len(data) > _LARGE:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "JPEG", quality=85)
            kind, data = ("jpeg", buffer.getvalue()) if len(buffer.getvalue()) < len(data) else (kind, data)
    source = f"data:image/{kind};base64,{b64encode(data).decode()}"
    caption = escape(picture.caption)
    drawn = f'<img src="{source}" width="{width}" height="{height}" alt="{escape(picture.name)}: {caption}">'
    return f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>"


def _table(table: Table) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for head in table.heads)
    heads = f"<tr>{heads}</tr>" if any(table.heads) else ""
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    drawn = f'<div class="scroll"><table>{heads}{rows}</table></div>'
    return f"<details><summary>{escape(table.summary)}</summary>{drawn}</details>" if table.summary else drawn
