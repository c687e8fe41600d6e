"""How tables, plot and notes are written down: for the terminal, as Markdown, and as a page."""

import base64
import html
from collections.abc import Sequence

Table = list[list[str]]

# What the picture shows, for who does not see it.
_ALTERNATIVE = "Shares of problems solved, or questions answered, against the number of operations"
_SPENT = "Shares of problems solved against the tokens written for each"


def aligned(table: Table) -> str:
    """A table in columns of equal width."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        first, *others = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join([first, *others]).rstrip())
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:]])


def markdown(
    title: str, tables: Sequence[tuple[str, Table]], notes: Sequence[str], plot: str
) -> str:
    """A title, the picture in the file `plot`, tables under their heads, and notes."""
    parts = [f"# {title}", f"![{_ALTERNATIVE}]({plot})"]
    for head, table in tables:
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
        rule = "|" + " --- |" * len(table[0])
        parts.append("\n".join([f"## {head}", "", rows[0], rule, *rows[1:]]))
    return "\n\n".join([*parts, *notes]) + "\n"


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; } th { font-weight: 600; border-bottom-color: #888; }
pre { overflow-x: auto; font-size: .85rem; }
p.note { color: #555; margin: .3rem 0; }
"""


def page(
    title: str,
    tables: Sequence[tuple[str, Table]],
    notes: Sequence[str],
    pictures: Sequence[bytes],
    settings: tuple[Table, Table] | None,
    examples: Sequence[tuple[str, str]] = (),
) -> str:
    """The same as HTML that needs no other file.

    Args:
        title: of all.
        tables: under their heads.
        notes: below them.
        pictures: PNGs, the plot against operations first.
        settings: those in which the runs differ, and those that they share, as far as is known.
        examples: texts under their heads, as they are.
    """
    embedded = [base64.b64encode(png).decode() for png in pictures]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    for alternative, picture in zip((_ALTERNATIVE, _SPENT), embedded, strict=False):
        parts.append(f'<img alt="{alternative}" src="data:image/png;base64,{picture}">')
    for head, table in tables:
        parts += [f"<h2>{html.escape(head)}</h2>", _html_table(table)]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in notes]
    if examples:
        parts.append("<h2>What models wrote</h2>")
    for head, text in examples:
        written = f"<pre>{html.escape(text)}</pre>"
        parts.append(f"<details><summary>{html.escape(head)}</summary>{written}</details>")
    if settings:
        differing, shared = map(_html_table, settings)
        parts += ["<h2>In what the runs differ</h2>", differing]
        parts += ["<details><summary>What all runs share</summary>", shared, "</details>"]
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in table[1:])
    head = row(table[0], "th")
    return f'<div class="wide"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'
