"""The card of an exported model: what it was trained on, what it can do, and how to load it."""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from etils import epath

from data_gen.settings import written
from data_gen.spec import NAMED, Spec
from physlm import model
from physlm.experiments import config as config_lib
from physlm.experiments import files, results, scales
from physlm.experiments.evaluation import EVALUATIONS_DIR, RESULT_FILE
from physlm.experiments.run import Run
from physlm.huggingface import mapping

_FRONT = """---
license: apache-2.0
library_name: {library}
{base}pipeline_tag: text-generation
language: en
tags:
- physlm
- igsm
- synthetic
{tags}---
"""

_LOADING = """## How to load it

```python
{loaded}
problem = (
{lines}
)
inputs = tokenizer(problem, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0]))
```
"""

_WHOLE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

DIRECTORY = "."  # the one that this file is in
tokenizer = AutoTokenizer.from_pretrained(DIRECTORY{code})
model = AutoModelForCausalLM.from_pretrained(DIRECTORY{code})"""

_FACTORS = """\
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

DIRECTORY = "."  # the one that this file is in
BASE = PeftConfig.from_pretrained(DIRECTORY).base_model_name_or_path  # or where the base is now
tokenizer = AutoTokenizer.from_pretrained(DIRECTORY)
base = AutoModelForCausalLM.from_pretrained(BASE{code})
model = PeftModel.from_pretrained(base, DIRECTORY)"""

# Fields of the class that change no problem's text, or that the card gives elsewhere.
_UNASKED = ("split", "op", "reask", "tokenizer", "tokenizer_files")

# With these settings both conditions of this study are one run.
_STUDY = "quickstart"
_VARIED = ("mistakes.rate", "mistakes.mask")


@dataclasses.dataclass(frozen=True)
class Adapter:
    """What a card says of low-rank adapters, beyond what it says of a model.

    Attributes:
        base: the name of the exported directory that they change.
        count: how many numbers their factors have.
    """

    base: str
    count: int


def text(
    run: Run,
    directory: epath.Path,
    step: int,
    dtype: str,
    prompt: str,
    adapter: Adapter | None = None,
) -> str:
    """The card, in Markdown with a head that the hub reads.

    Args:
        run: whose model it is.
        directory: of the run.
        step: after which the model is exported.
        dtype: of the weights.
        prompt: of a test problem of the run's class.
        adapter: what is exported, where that is not the whole model.

    Raises:
        ValueError: a result of an evaluation is damaged.
    """
    settings = run.settings
    own = mapping.is_own(settings.model)
    code = ", trust_remote_code=True" if own else ""
    count = f"{model.count(settings.model):,}"
    what, front = f"A decoder of {count} parameters ({dtype})", {"base": "", "tags": ""}
    if adapter:
        what = (
            f"Low-rank factors of {adapter.count:,} numbers ({dtype}) that change the decoder of "
            f"{count} parameters in `{adapter.base}`, which is not here,"
        )
        front = {"base": f"base_model: {json.dumps(adapter.base)}\n", "tags": "- lora\n"}
    loaded = (_FACTORS if adapter else _WHOLE).format(code=code)
    order = ("problem", "question") if settings.data.order == "pq" else ("question", "problem")
    parts = [
        _FRONT.format(library="peft" if adapter else "transformers", **front),
        f"# {run.name}",
        f"{what}, trained on synthetic grade-school mathematics (iGSM) {_condition(run)}. It is a "
        'subject of experiments on learning from mistakes, after "Physics of Language Models, Part '
        '2.2" (arXiv 2408.16293), and of no use beyond such problems.',
        "## Training",
        _list(_training(run, step)),
        "## Results",
        _results(directory, step),
        _LOADING.format(loaded=loaded, lines=_in_lines(prompt)),
        f"A prompt is `<|problem|>`, the {order[0]}, the {order[1]} and `<|solution|>`, with "
        "nothing between them; the model writes a solution step by step, `<|answer|>`, the answer, "
        "and `<|end|>`. It reads no words but those of its class of problems. This prints such a "
        f"problem, its question and its solution:\n\n```bash\n{_drawing(settings.data)}\n```",
    ]
    if own and not adapter:
        parts.append(
            "No published class of transformers computes what this decoder does, so that its code, "
            "`modeling_physlm.py`, is here too, and `trust_remote_code=True` runs it."
        )
    parts += ["## How it was made", _made(run, step), "## Licence", "Apache-2.0."]
    return "\n\n".join(parts) + "\n"


def _in_lines(text: str) -> str:
    """A text as Python reads it, a sentence a line."""
    pieces = [piece for piece in text.replace(". ", ".\0 ").split("\0") if piece]
    return "\n".join(f"    {piece!r}" for piece in pieces)


def _condition(run: Run) -> str:
    mistakes = run.settings.mistakes
    if not mistakes.rate:
        return "with error-free solutions"
    masked = "" if mistakes.mask == "none" else ", without loss on what is wrong"
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


def _drawing(spec: Spec) -> str:
    """The command that prints a test problem of a class."""
    found = []
    for name, named in sorted(NAMED.items()):
        usual = dataclasses.asdict(named)
        changes = {
            key: value
            for key, value in dataclasses.asdict(spec).items()
            if key not in _UNASKED and value != usual[key]
        }
        found.append((len(changes), name, changes))
    _, name, changes = min(found, key=lambda one: one[0])
    words = ["python", "-m", "data_gen", "sample", "--spec", name, "--split", "test"]
    return shlex.join([*words, *_assigned(changes)])


def _training_command(run: Run) -> str:
    """The command that trains the run and judges it, from the scale that needs the fewest words."""
    flat = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in config_lib.flatten(run.config).items()
        # The mesh does not change what is trained.
        if not key.startswith("mesh.")
    }
    if parent := run.settings.parent.run:
        flat["parent.run"] = pathlib.PurePath(parent).name
    found = []
    for scale in scales.NAMES:
        usual = config_lib.flatten(config_lib.base(scale))
        changes = {
            key: value for key, value in flat.items() if key in _VARIED or value != usual[key]
        }
        found.append((len(changes), scale, changes))
    _, scale, changes = min(found, key=lambda one: one[0])
    words = ["python", "-m", "physlm.experiments.sweep", _STUDY, "--scale", scale]
    return shlex.join([*words, *_assigned(changes)])


def _assigned(changes: Mapping[str, Any]) -> list[str]:
    said = [f"{key}={written(value)}" for key, value in changes.items()]
    return ["--set", *said] if said else []


def _made(run: Run, step: int) -> str:
    """How the model was made: settings that decide its weights, and commands."""
    facts = json.dumps(run.facts, indent=1, sort_keys=True)
    trains = "It was taken over as it was, and not trained here."
    if step:
        store = " in a store that holds what it was begun from" if run.settings.parent.run else ""
        trains = f"This trains it{store}:\n\n```bash\n{_training_command(run)}\n```"
    return (
        "By physlm, an open system for such experiments in JAX, from the seed and these "
        f"settings:\n\n```json\n{facts}\n```\n\n{trains}\n\nIn the store that holds the run, "
        f"this judges it anew:\n\n```bash\npython -m physlm.experiments.evaluate "
        f"models/{shlex.quote(run.name)}\n```"
    )
