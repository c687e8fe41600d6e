"""The dataset card of a frozen set: what Hugging Face datasets and people read first."""

import dataclasses
import shlex
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from data_gen.frozen import files, rows
from data_gen.frozen.rows import Contents
from data_gen.settings import written
from data_gen.spec import NAMED, Spec

# Sizes as the Hugging Face Hub names them: of three digits at most, of four, ….
_SIZES = (
    *("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M"),
    *("100M<n<1B", "1B<n<10B"),
)

_SPLITS = {
    "all": "of any template",
    "train": "of the templates that are for training",
    "test": "of the templates that are withheld from training",
}

_MEANINGS = {
    "id": "class, seed, split and number of the problem",
    "layers": "JSON text, `[[category, [item, …]], …]`, the top layer first; "
    "`json.loads` makes it what `sample` prints",
    "problem": "what is stated, in a random order",
    "question": "what is asked",
    "solution": "the steps, each of which names a parameter and computes it",
    "answer": "the number asked for, modulo {modulus}",
    "op": "operations that the shortest solution takes",
    "mended": "the mistakes that the solution takes back: after how many steps that stand, of "
    "what kind, how it is mended, and how many further sentences are taken back with it",
}

_CARD = """\
---
{front}
---

# iGSM, class `{name}`

Grade-school problems whose structure is drawn at random, with solutions that are right step by
step: the class iGSM of "Physics of Language Models", Parts 2.1 and 2.2. {settings}
{mistakes}

```bash
{command}
```

made these rows (version {version} of what a seed stands for), and makes the same ones again on any
machine.

| split | rows | problems |
|---|---|---|
{splits}

A template is a solution without names, numbers and letters. {apart}

## Fields

| field | type | |
|---|---|---|
{fields}

Problem, question and solution begin with a space and can be joined as they are; `order={order}` is
the order of a document, {first} first.

## What it does not hold

No text that people wrote, no problem of another data set, and nothing about a real thing or
person: names are drawn from lists. No token ids, no loss masks, and nothing that depends on a
tokenizer. No wrong answers: where there are mistakes, each is taken back in the solution it is in.
Numbers of operations are not equally frequent, unless the settings above say so.

## Citation

{citations}"""

_CITATIONS = """\
```bibtex
@article{ye2024physics1,
  title   = {Physics of Language Models: Part 2.1, Grade-School Math and the Hidden Reasoning Process},
  author  = {Ye, Tian and Xu, Zicheng and Li, Yuanzhi and Allen-Zhu, Zeyuan},
  journal = {arXiv preprint arXiv:2407.20311},
  year    = {2024}
}
@article{ye2024physics2,
  title   = {Physics of Language Models: Part 2.2, How to Learn From Mistakes on Grade-School Math Problems},
  author  = {Ye, Tian and Xu, Zicheng and Li, Yuanzhi and Allen-Zhu, Zeyuan},
  journal = {arXiv preprint arXiv:2408.16293},
  year    = {2024}
}
```
"""  # noqa: E501


def text(contents: Contents, *, format: str, types: bool, command: str) -> str:
    """The card of a set of files.

    Args:
      contents: what the set holds.
      format: of its files, of `files.FORMATS`.
      types: whether rows have `mended`.
      command: what made it.
    """
    total = sum(contents.counts.values())
    size = _SIZES[max(len(str(total)) - 3, 0)]
    columns = {**files.COLUMNS, **({"mended": "list"} if types else {})}
    front = "\n".join(_front(contents, size, format, columns))
    fields = "\n".join(
        f"| `{name}` | {kind} | {_MEANINGS[name].format(modulus=contents.spec.modulus)} |"
        for name, kind in columns.items()
    )
    splits = "\n".join(
        f"| `{rows.label(split)}` | {count:,} | {_SPLITS[split]} |"
        for split, count in contents.counts.items()
    )
    return _CARD.format(
        front=front,
        name=contents.name,
        settings=_settings(contents.spec, NAMED[contents.name]),
        mistakes=_mistakes(contents),
        command=command,
        version=rows.VERSION,
        splits=splits,
        apart=_apart(contents),
        fields=fields,
        order=contents.spec.order,
        first={"pq": "the problem", "qp": "the question"}[contents.spec.order],
        citations=_CITATIONS,
    )


def command(arguments: Mapping[str, Any], left_out: Collection[str]) -> str:
    """The command line of parsed arguments, `command` among them; it writes to DIR."""
    words = ["python", "-m", "data_gen", arguments["command"]]
    for name, value in arguments.items():
        if name in ("command", *left_out) or value is None or value is False or value == []:
            continue
        values = [] if value is True else value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join([*words, "--out", "DIR"])


def _front(contents: Contents, size: str, format: str, columns: Mapping[str, str]) -> Iterator[str]:
    yield "license: apache-2.0"
    yield "language:\n- en"
    yield f"pretty_name: iGSM {contents.name}"
    yield f"size_categories:\n- {size}"
    yield "task_categories:\n- question-answering\n- text-generation"
    yield "tags:\n- mathematics\n- reasoning\n- synthetic\n- igsm"
    yield "configs:\n- config_name: default\n  data_files:"
    for split in contents.counts:
        yield f"  - split: {rows.label(split)}"
        yield f"    path: data/{rows.label(split)}-*.{files.FORMATS[format].suffix}"
    yield "dataset_info:\n  features:"
    for name, kind in columns.items():
        yield f"  - name: {name}"
        if kind == "list":
            yield "    list:"
            for inner, inner_kind in files.MENDED_COLUMNS.items():
                yield f"    - name: {inner}\n      dtype: {inner_kind}"
        else:
            yield f"    dtype: {kind}"


def _settings(spec: Spec, named: Spec) -> str:
    """The settings in which the class differs from the named one."""
    others = _changes(spec, named)
    if not others:
        return "The class is the published one."
    return f"Of the class's settings these differ from the published ones: {others}."


def _mistakes(contents: Contents) -> str:
    if not contents.mistakes.rate:
        return "Solutions have no mistakes in them."
    made = ", ".join(
        f"`{name}={written(value)}`"
        for name, value in dataclasses.asdict(contents.mistakes).items()
        # No text depends on what bears no loss.
        if name != "mask"
    )
    return (
        f"Solutions have mistakes in them, each followed by its correction ({made}): "
        "the markers BACK, FIX and RESTART say that something is taken back."
    )


def _apart(contents: Contents) -> str:
    if "test" not in contents.counts:
        return "Nothing is said here of which templates another set has."
    if contents.spec.unsplit_op:
        return (
            "No template of `test` is among those for training, but for problems of at most "
            f"{contents.spec.unsplit_op} operations, which may have any."
        )
    return "No template of `test` is among those for training, whatever their seed."


def _changes(spec: Spec, named: Any) -> str:
    given, usual = dataclasses.asdict(spec), dataclasses.asdict(named)
    return ", ".join(
        f"`{name}={written(value)}`" for name, value in given.items() if value != usual[name]
    )
