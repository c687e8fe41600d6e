"""Rendering of reports: for the terminal, as Markdown, and as an HTML page."""

import base64
import dataclasses
import html
import itertools
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

from physlm.experiments.figures.drawing import Drawing

Table = list[list[str]]

# Tables of more rows are folded.
_LONG = 24
# Characters of the first column before it breaks.
_ROOM = 24
# On a terminal: the space between two columns, and the width up to which cells are not broken.
_GAP, _SHORT = "  ", 8


@dataclasses.dataclass(frozen=True)
class Content:
    """The content of a report.

    Attributes:
        title: of all.
        about: under the title: what was run.
        findings: sentences on how conditions compare.
        further: sentences on comparisons that found no difference, where there are many.
        drawings: pictures, the most telling one first.
        leading: how many pictures stand before the sentences.
        tables: under their heads.
        notes: how to read them, and what is missing.
        examples: solutions of models as HTML, under their heads.
        closed: tables that are folded on the page.
        commands: that make all of it again.
    """

    title: str
    about: str = ""
    findings: Sequence[str] = ()
    further: Sequence[str] = ()
    drawings: Sequence[Drawing] = ()
    leading: int = 1
    tables: Sequence[tuple[str, Table]] = ()
    notes: Sequence[str] = ()
    examples: Sequence[tuple[str, str]] = ()
    closed: Sequence[tuple[str, Table]] = ()
    commands: Sequence[str] = ()


def aligned(table: Table, room: int) -> str:
    """A table in columns, no wider than so many characters where its words allow.

    Long cells are broken into lines. If columns have no room even so, they follow below, with the
    first column repeated.
    """
    columns = list(zip(*table, strict=True))
    named = 2 if table[0][1:2] == ["op"] else 1
    parts: list[list[tuple[str, ...]]] = [columns[:named]]
    for column in columns[named:]:
        if len(parts[-1]) > named and _wide(map(_least, [*parts[-1], column])) > room:
            parts.append(columns[:named])
        parts[-1].append(column)
    return "\n\n".join(_aligned(part, room) for part in parts)


def _aligned(columns: Sequence[Sequence[str]], room: int) -> str:
    least, widths = [*map(_least, columns)], [max(map(len, column)) for column in columns]
    while (over := _wide(widths) - room) > 0:
        spare, widest = max((width - least[n], n) for n, width in enumerate(widths))
        if not spare:
            break
        widths[widest] -= min(over, max(1, spare // 2))
    lines = []
    for number, row in enumerate(zip(*columns, strict=True)):
        broken = (
            textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)
            for cell, width in zip(row, widths, strict=True)
        )
        for cells in itertools.zip_longest(*broken, fillvalue=""):
            texts = (text.ljust(width) for text, width in zip(cells, widths, strict=True))
            lines.append(_GAP.join(texts).rstrip())
        if not number:
            lines.append(_GAP.join("-" * width for width in widths))
    return "\n".join(lines)


def _least(column: Sequence[str]) -> int:
    """The width at which neither words nor short cells are broken."""
    return max(
        len(part) for cell in column for part in ([cell] if len(cell) <= _SHORT else cell.split())
    )


def _wide(widths: Iterable[int]) -> int:
    found = list(widths)
    return sum(found) + len(_GAP) * (len(found) - 1)


def terminal(content: Content) -> str:
    """The report as a terminal shows it, within its width; unlimited where it is no terminal."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    tables = [f"{head}\n{aligned(table, room)}" for head, table in content.tables]
    findings = ["\n".join(content.findings)] if content.findings else []
    findings += [f"{_further(content)}: results.md has them."] if content.further else []
    heads = [content.title, *([content.about] if content.about else [])]
    return "\n\n".join(["\n".join(heads), *tables, *findings, "\n".join(content.notes)])


def markdown(content: Content) -> str:
    """The report as Markdown, with pictures by their files."""
    parts = [f"# {content.title}", *([content.about] if content.about else [])]
    parts += [
        f"![{one.alternative}]({one.name}.png)" for one in content.drawings[: content.leading]
    ]
    parts += [_markdown_list(content.findings)] if content.findings else []
    if content.further:
        parts.append(f"<details><summary>{_further(content)}</summary>")
        parts += [_markdown_list(content.further), "</details>"]
    parts += [
        f"![{one.alternative}]({one.name}.png)" for one in content.drawings[content.leading :]
    ]
    if content.tables:
        parts.append(tables(content.tables).rstrip())
    parts += content.notes
    if content.commands:
        parts.append("Made by:\n\n```bash\n" + "\n".join(content.commands) + "\n```")
    return "\n\n".join(parts) + "\n"


def _further(content: Content) -> str:
    number = len(content.further)
    return f"{number} more comparison{'s' if number > 1 else ''} in which nothing is told apart"


def _markdown_list(said: Sequence[str]) -> str:
    return "\n".join(f"- {one}" for one in said)


def tables(found: Sequence[tuple[str, Table]]) -> str:
    """Tables under their heads, as Markdown."""
    return "\n\n".join(f"## {head}\n\n{_markdown_table(table)}" for head, table in found) + "\n"


def _markdown_table(table: Table) -> str:
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    return "\n".join([rows[0], "|" + " --- |" * len(table[0]), *rows[1:]])


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --soft: #5a5a5a; --line: #ddd;
        --strong: #888; --good: #00694f; --bad: #b03a00; --back: #7a5b00; --code: #f4f4f4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --soft: #a8a8a8; --line: #34373d; --strong: #777;
          --good: #4cc9a4; --bad: #ff9166; --back: #e6c34d; --code: #212429; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem;
       color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.1rem; margin-top: 2rem; }
picture { display: block; overflow-x: auto; margin: 1rem 0; }
img { display: block; width: 100%; min-width: 40rem; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0;
        font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
         overflow-wrap: normal; }
td { white-space: nowrap; }
thead th { font-weight: 600; min-width: 4.5rem; vertical-align: bottom;
           border-bottom-color: var(--strong); }
tbody th { font-weight: 400; vertical-align: top; }
tr > th:first-child { position: sticky; left: 0; background: var(--paper); }
pre { overflow-x: auto; font-size: .85rem; background: var(--code); padding: .7rem; }
summary { cursor: pointer; margin: .5rem 0; }
p.note { color: var(--soft); margin: .3rem 0; font-size: .92rem; }
ol.steps { padding-left: 2rem; } ol.steps li { margin: .15rem 0; }
.right { color: var(--good); } .wrong { color: var(--bad); font-weight: 600; }
.back { color: var(--back); text-decoration: line-through; list-style: none; }
.back .kind { display: inline-block; text-decoration: none; }
.said { color: var(--soft); }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --soft: #333; --line: #bbb;
                       --code: #fff; --good: #00694f; --bad: #b03a00; --back: #7a5b00; }
  @page { size: A4 landscape; margin: 12mm; }
  img { min-width: 0; width: auto; max-width: 100%; max-height: 170mm; }
  body { max-width: none; margin: 0; font-size: 9pt; } .wide { overflow: visible; }
  table { font-size: 7.5pt; } th, td { padding-right: .4rem; } thead th { min-width: 0; }
  h2 { break-after: avoid; } picture, img, tr { break-inside: avoid; } td { white-space: normal; } }
"""


def page(content: Content) -> str:
    """The report as one HTML file that needs no other, light or dark as the reader's system is."""
    title = html.escape(content.title)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
    ]
    if content.about:
        parts.append(f'<p class="note">{html.escape(content.about)}</p>')
    parts += [_picture(one) for one in content.drawings[: content.leading]]
    if content.findings or content.further:
        parts += ["<h2>In words</h2>", _html_list(content.findings)]
    if content.further:
        parts.append(_closed(_further(content), _html_list(content.further)))
    parts += [_picture(one) for one in content.drawings[content.leading :]]
    for head, table in content.tables:
        if len(table) > _LONG:
            parts.append(_closed(f"{head} ({len(table) - 1} rows)", _html_table(table)))
        else:
            parts += [f"<h2>{html.escape(head)}</h2>", _html_table(table)]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in content.notes]
    if content.examples:
        parts.append("<h2>What models wrote</h2>")
    for head, written in content.examples:
        parts.append(_closed(head, written))
    parts += [_closed(head, _html_table(table)) for head, table in content.closed]
    if content.commands:
        commands = html.escape("\n".join(content.commands))
        parts.append(f"<h2>How this is made again</h2><pre>{commands}</pre>")
    return "\n".join([*parts, "</body></html>"]) + "\n"


def picture(alternative: str, svg: bytes) -> str:
    """A picture on a white ground, as HTML."""
    data = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    return f'<img alt="{html.escape(alternative)}" src="{data}">'


def _picture(one: Drawing) -> str:
    light, dark = (
        "data:image/svg+xml;base64," + base64.b64encode(data).decode()
        for data in (one.svg, one.dark)
    )
    source = f'<source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
    return f'<picture>{source}<img alt="{html.escape(one.alternative)}" src="{light}"></picture>'


def _closed(head: str, inside: str) -> str:
    return f"<details><summary>{html.escape(head)}</summary>{inside}</details>"


def _html_list(said: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(one)}</li>" for one in said) + "</ul>"


def _html_table(table: Table) -> str:
    """A table whose first column stays in sight while scrolling, and has equal cells once."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row[1:])

    rows = []
    for first, group in itertools.groupby(table[1:], lambda row: row[0]):
        others = [cells(row, "td") for row in group]
        span = f' rowspan="{len(others)}"' if len(others) > 1 else ""
        rows.append(f'<th scope="row"{span}>{html.escape(first)}</th>{others[0]}')
        rows += others[1:]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    # Columns without line breaks would leave the first one the width of a word.
    room = min(max(len(row[0]) for row in table), _ROOM)
    first = f'<th style="min-width: min({room}ch, 42vw)">{html.escape(table[0][0])}</th>'
    head = f"<tr>{first}{cells(table[0], 'th')}</tr>"
    return f'<div class="wide"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'
