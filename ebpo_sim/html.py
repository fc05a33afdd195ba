"""One self-contained HTML page of text, tables and pictures: no network, readable on a phone, tables sort and filter.

The page forbids itself any request (Content-Security-Policy default-src 'none'); pictures are data in it. All text is
escaped, whatever log or file it comes from. FILE.html#WORDS opens with the tables filtered by these words.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple


class Text(NamedTuple):
    """Paragraphs below a heading; preformatted: with its line breaks, in one width of letters."""

    title: str
    paragraphs: Sequence[str]
    preformatted: bool = False


class Table(NamedTuple):
    """Cells as text. Words of `marks` (a cell's beginning -> class) colour a cell: "good", "bad", "mixed"."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    marks: Sequence[tuple[str, str]] = ()


class Picture(NamedTuple):
    """A PNG with what it shows in words."""

    title: str
    png: bytes
    caption: str


class Live(NamedTuple):
    """A part with a script of its own. body: markup; script: run once with `data`, what JSON can hold, as DATA. Both
    are the caller's own, written by hand; what comes from elsewhere goes into `data`, and by textContent into the page.
    """

    title: str
    body: str
    script: str
    data: Any


Part = Text | Table | Picture | Live

STYLE = """
:root{--ink:#1a1a1a;--soft:#666;--line:#ddd;--paper:#fff;--good:#dcebf7;--bad:#fbe3d2;--mixed:#f3ecd0}
@media(prefers-color-scheme:dark){:root{--ink:#eee;--soft:#aaa;--line:#444;--paper:#161616;--good:#173650;--bad:#52301a;
--mixed:#453d17}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:72rem;margin:0 auto;
padding:1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}p.lead{font-size:1.1rem}
.note,figcaption{color:var(--soft);font-size:.9rem}
label{margin-right:1rem}select{font:inherit;max-width:100%}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;width:100%}
th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem;text-align:left;vertical-align:top}
th{cursor:pointer;white-space:nowrap}
td.good{background:var(--good)}td.bad{background:var(--bad)}td.mixed{background:var(--mixed)}
input{font:inherit;padding:.3rem;margin:.5rem 0;width:100%;max-width:24rem;box-sizing:border-box}
figure{margin:1rem 0}img{max-width:100%;height:auto;background:#fff}pre{overflow-x:auto;font-size:.85rem}
"""
SCRIPT = """
for(const box of document.querySelectorAll('section.table')){
 const body=box.querySelector('tbody'),rows=[...body.rows],field=box.querySelector('input');
 const filter=()=>{const words=field.value.toLowerCase().split(/\\s+/);
  for(const r of rows)r.hidden=!words.every(w=>r.textContent.toLowerCase().includes(w))};
 field.addEventListener('input',filter);
 if(location.hash){field.value=decodeURIComponent(location.hash.slice(1));filter()}
 box.querySelectorAll('th').forEach((head,i)=>{let up=false;head.addEventListener('click',()=>{up=!up;
  const key=r=>r.cells[i].textContent.trim(),number=t=>parseFloat(t.replace('\\u2212','-'));
  const order=(a,b)=>{const x=number(key(a)),y=number(key(b));
   return isNaN(x)||isNaN(y)?key(a).localeCompare(key(b)):x-y};
  for(const r of rows.sort((a,b)=>up?order(a,b):order(b,a)))body.append(r)})})}
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(title: str, lead: str, parts: Sequence[Part]) -> bytes:
    """The whole page, UTF-8. lead: the answer, in a sentence or two."""
    body = "\n".join(_part(part) for part in parts)
    head = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<style>{STYLE}</style></head>\n'
    )
    front = f'<body><h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
    return (head + front + body + f"\n<script>{SCRIPT}</script></body></html>\n").encode()


def _part(part: Part) -> str:
    heading = f"<h2>{escape(part.title)}</h2>\n"
    match part:
        case Text():
            mark = "pre" if part.preformatted else "p"
            return heading + "\n".join(f"<{mark}>{escape(text)}</{mark}>" for text in part.paragraphs)
        case Picture():
            data = base64.b64encode(part.png).decode("ascii")
            image = f'<img alt="{escape(part.caption)}" src="data:image/png;base64,{data}">'
            return f"{heading}<figure>{image}<figcaption>{escape(part.caption)}</figcaption></figure>"
        case Table():
            return f'<section class="table">{heading}{_table(part)}</section>'
        case Live():
            data = json.dumps(part.data, allow_nan=False).replace("<", "\\u003c")  # else it could end the script
            return f"<section>{heading}{part.body}\n<script>{{const DATA={data};\n{part.script}}}</script></section>"


def _table(table: Table) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in table.headers)
    lines = "".join("<tr>" + "".join(_cell(text, table.marks) for text in row) + "</tr>\n" for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>\n' if table.note else ""
    label = escape(f"filter: {table.title}")
    return (
        f'{note}<input type="search" placeholder="filter by words" aria-label="{label}">\n<div class="scroll"><table>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>{lines}</tbody></table></div>"
    )


def _cell(text: str, marks: Sequence[tuple[str, str]]) -> str:
    kind = next((kind for beginning, kind in marks if text.startswith(beginning)), "")
    mark = f' class="{kind}"' if kind else ""
    return f"<td{mark}>{escape(text)}</td>"
