"""All settings in words: what each is, which values it may have, and its value at a scale."""

import inspect
import textwrap
from collections.abc import Iterator

from ml_collections import ConfigDict

from data_gen.settings import Setting, written
from physlm.experiments import config as config_lib

# Columns of a line, and those of a value.
_WIDTH, _VALUE = 100, 14


def manual(config: ConfigDict) -> str:
    """Every setting of a study's configuration, section by section.

    Each has its key, its value, below it that of the published recipe where that is another one,
    and on the right its meaning and the values that it may have.
    """
    values = config_lib.flatten(config)
    published = config_lib.flatten(config_lib.base("paper"))
    known = config_lib.declared()
    column = max(map(len, known)) + 4
    title = (
        f"Settings of the study {config.study} at scale {config.scale}, in parentheses those of "
        "the published recipe where they differ. --set KEY=VALUE changes one. Those marked * do "
        "not decide a run's weights."
    )
    lines, section = textwrap.wrap(title, _WIDTH), ""
    for key, setting in known.items():
        if (here := key.rpartition(".")[0]) != section:
            section = here
            lines += ["", "", *_heading(section)]
        lines += ["", *_entry(key, setting, _shown(values[key]), _shown(published[key]), column)]
    return "\n".join(lines)


def _shown(value: object) -> str:
    return written(value) or '""'


def _heading(section: str) -> list[str]:
    """A section's name, and what the dataclasses that declare its settings say of themselves."""
    parts = config_lib.SECTIONS[section]
    summaries = [(inspect.getdoc(part) or "").partition("\n")[0] for part in parts]
    return textwrap.wrap(f"{section.upper()}: {' '.join(summaries)}", _WIDTH)


def _entry(key: str, setting: Setting, value: str, published: str, column: int) -> Iterator[str]:
    """The lines of one setting; a value that is too long for its column has a line of its own."""
    name = key if config_lib.decides(key) else f"{key} *"
    left = [f"{name:<{column}}{value}"]
    if value != published:
        left.append(f"{'':<{column}}({published})")
    indent = column + _VALUE + 2
    allowed = setting.allowed[0].upper() + setting.allowed[1:]
    words = f"{setting.meaning} {allowed}."
    right = textwrap.wrap(words, _WIDTH - indent, break_on_hyphens=False)
    if max(map(len, left)) + 2 > indent:
        yield from left
        left = []
    for number in range(max(len(left), len(right))):
        first = left[number] if number < len(left) else ""
        second = right[number] if number < len(right) else ""
        yield f"{first:<{indent}}{second}".rstrip()
