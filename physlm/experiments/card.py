"""The card of an exported model: what it was trained on, what it can do, and how to load it."""

import json
import pathlib
import shlex
from typing import Any

from etils import epath

from physlm import model
from physlm.experiments import files, results
from physlm.experiments.evaluation import EVALUATIONS_DIR, RESULT_FILE
from physlm.experiments.run import Run
from physlm.huggingface import mapping

_FRONT = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: en
tags:
- physlm
- igsm
- synthetic
---
"""

_LOADING = """## How to load it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(DIRECTORY{code})
model = AutoModelForCausalLM.from_pretrained(DIRECTORY{code})
problem = {example!r}
inputs = tokenizer(problem, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0]))
```
"""


def text(run: Run, directory: epath.Path, step: int, dtype: str) -> str:
    """The card, in Markdown with a head that the hub reads.

    Args:
        run: whose model it is.
        directory: of the run.
        step: after which the model is exported.
        dtype: of the weights.

    Raises:
        ValueError: a result of an evaluation is damaged.
    """
    settings = run.settings
    own = mapping.is_own(settings.model)
    count = model.count(settings.model)
    code = ", trust_remote_code=True" if own else ""
    parts = [
        _FRONT,
        f"# {run.name}",
        f"A decoder of {count:,} parameters ({dtype}), trained on synthetic grade-school "
        f"mathematics (iGSM) {_condition(run)}. It is a subject of experiments on learning from "
        'mistakes, after "Physics of Language Models, Part 2.2" (arXiv 2408.16293), and of no use '
        "beyond such problems.",
        "## Training",
        _list(_training(run, step)),
        "## Results",
        _results(directory, step),
        _LOADING.format(code=code, example="<|problem|> …"),
        "A prompt is a problem of the class, its question, and `<|solution|>`; the model writes a "
        "solution step by step, `<|answer|>`, the answer, and `<|end|>`. `python -m data_gen "
        "sample` draws problems.",
    ]
    if own:
        parts.append(
            "No published class of transformers computes what this decoder does, so that its code, "
            "`modeling_physlm.py`, is here too, and `trust_remote_code=True` runs it."
        )
    parts += ["## How it was made", _made(run), "## Licence", "Apache-2.0."]
    return "\n\n".join(parts) + "\n"


def _condition(run: Run) -> str:
    mistakes = run.settings.mistakes
    if not mistakes.rate:
        return "with error-free solutions"
    masked = ", without loss on what is wrong" if mistakes.mask else ""
    return (
        f"with solutions that hold mistakes (`{mistakes.kind_by_name}`, rate {mistakes.rate:g}) "
        f"and their corrections{masked}"
    )


def _training(run: Run, step: int) -> dict[str, str]:
    settings = run.settings
    data, decoder = settings.data, settings.model
    said = {
        "problems": f"up to {data.max_op} operations, modulo {data.modulus}, split `{data.split}`",
        "tokens": f"{run.tokens_after(step):,} ({step:,} steps)",
        "window": f"{decoder.window} tokens, vocabulary of {decoder.vocab}",
        "model": f"{decoder.variant}, {decoder.layers} layers, {decoder.heads} heads of "
        f"{decoder.head_dim}" + (f", Canon layers {decoder.canon}" if decoder.canon else ""),
        "seed": str(settings.seed),
    }
    if settings.practice.records:
        said["records among them"] = f"{settings.practice.records_share:g} of all documents"
    if settings.parent.run:
        said["begun from"] = f"`{pathlib.PurePath(settings.parent.run).name}`"
        said["trained of it"] = settings.adaptation.kind
    return said


def _list(said: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in said.items())


def _results(directory: epath.Path, step: int) -> str:
    """A table of every evaluation after this step."""
    tables = []
    paths = (directory / EVALUATIONS_DIR).glob(f"step={step},*/{RESULT_FILE}")
    for path in sorted(paths, key=lambda path: (",greedy," not in path.parent.name, path)):
        found = files.read_json(path)
        if not isinstance(found, dict) or found.get("step") != step:
            continue
        lines = [
            "| problems with operations | n | every step right, 95% interval | answer right |",
            "|---|---|---|---|",
        ]
        lines += [_line(cell) for cell in results.cells(path)]
        tables.append(f"`{found['evaluation']}`:\n\n" + "\n".join(lines))
    if not tables:
        return "The model has not been judged after this step."
    return (
        "Test problems are of templates that training holds out. Numbers are of one seed; the "
        "intervals are Wilson's, over problems.\n\n" + "\n\n".join(tables)
    )


def _line(cell: dict[str, Any]) -> str:
    shown = [f"{100 * cell[name]:.1f}" for name in ("accuracy", "ci_low", "ci_high")]
    return (
        f"| {cell['cell']} | {cell['n']} | {shown[0]} [{shown[1]}, {shown[2]}] | "
        f"{100 * cell['answer_accuracy']:.1f} |"
    )


def _made(run: Run) -> str:
    """How the model was made: settings that decide its weights, and a command to evaluate it."""
    facts = json.dumps(run.facts, indent=1, sort_keys=True)
    name = shlex.quote(run.name)
    return (
        "By physlm, an open system for such experiments in JAX, from the seed and these "
        f"settings:\n\n```json\n{facts}\n```\n\nIn the store that holds the run, `python -m "
        f"physlm.experiments.evaluate models/{name}` judges it anew."
    )
