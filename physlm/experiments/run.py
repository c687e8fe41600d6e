"""A run: its configuration, its name, and its progress in its directory."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from etils import epath
from ml_collections import ConfigDict

from physlm import checkpoint, paths, train
from physlm.adaptation import FULL, PROBE
from physlm.experiments import config as config_lib
from physlm.experiments import files, identity, scales
from physlm.practice import PARENT

CONFIG_FILE = "config.json"
FINISHED_FILE = "finished.json"
ERROR_FILE = "error.txt"

Status = Literal["finished", "unfinished", "failed", "to do"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A model to be trained: the settings that decide its weights, and those that do not.

    Attributes:
        name: name of its directory: its data, model, tokens and seed in words, and the hash of all
            that decides its weights.
        config: the resolved configuration as plain JSON data. It also has settings that do not
            decide the weights: the mesh, and how the study that began the run judges it.
        settings: the same configuration as checked dataclasses, one for each section.
        facts: what decides its weights (`physlm.experiments.identity`).
        parent: the run that it begins with, where that is planned too.
    """

    name: str
    config: Mapping[str, Any]
    settings: config_lib.Settings
    facts: Mapping[str, Any]
    parent: "Run | None" = None

    @property
    def depth(self) -> int:
        """The number of its ancestors, as far as they are known."""
        return 1 + self.parent.depth if self.parent else 0

    @property
    def tokens(self) -> int:
        """Number of tokens that the whole training sees."""
        return self.tokens_after(self.settings.train.steps)

    def tokens_after(self, steps: int) -> int:
        """Number of tokens that the first `steps` training steps see."""
        return steps * self.settings.train.batch * self.settings.windows.window


def make_run(config: ConfigDict, parent: Run | None = None) -> Run:
    """The run of a resolved configuration.

    Args:
        config: of all its settings.
        parent: the run that it begins with, where that is planned too.

    Raises:
        ValueError: a setting is refused, or several do not fit together.
    """
    settings = config_lib.resolve(config)
    # Through JSON, so that a run read back and a run planned are equal (tuples become lists).
    plain = json.loads(json.dumps(config.to_dict()))
    # Study and scale are not part of the run.
    plain = {key: value for key, value in plain.items() if key not in config_lib.ARGUMENTS}
    facts = identity.of_run(plain, settings.data)
    run = Run("", plain, settings, facts, parent)
    return dataclasses.replace(run, name=f"{_in_words(run)[:150]}-{identity.digest(facts)}")


def _in_words(run: Run) -> str:
    mistakes, model = run.settings.mistakes, run.settings.model
    kind = in_a_path(mistakes.kind_by_name)
    data = f"{kind}-{mistakes.rate:g}" if mistakes.rate else "error-free"
    if records := run.settings.practice.records:
        data += "+own" if records == PARENT else "+records"
    size = f"{model.variant}-{model.layers}-{model.heads}"
    kind, parent = run.settings.adaptation.kind, run.settings.parent.run
    told = [data, size, rounded(run.tokens), f"seed={run.settings.seed}"]
    if kind != FULL:
        told.insert(0, f"{kind}-{run.settings.adaptation.rank}")
    if parent:
        told.append(f"of={identity.hash_of(parent)}")
    return ",".join(told)


def in_a_path(value: Any) -> str:
    """A value in characters that are allowed in file names everywhere."""
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9._+]+", "-", text).strip("-")


def rounded(number: int) -> str:
    """A number to three digits: 28672000 is 28.7M."""
    for size, suffix in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{suffix}"
    return str(number)


def load(directory: epath.Path, assignments: Sequence[str] = ()) -> Run:
    """Loads the run of a directory from its configuration.

    Args:
        directory: of the run.
        assignments: `key=value` texts over its settings.

    Raises:
        ValueError: there is no run, or a setting is refused.
    """
    path = directory / CONFIG_FILE
    if not paths.found(path):
        raise ValueError(
            f"{directory} is not the directory of a run: it has no {path.name}. "
            "The runs of a store DIR are DIR/models/RUN."
        )
    found = files.read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not the configuration of a run.")
    if any(key in found for key in config_lib.ARGUMENTS):
        raise ValueError(f"{directory} holds a run of an older version, which cannot be read.")
    # The configuration has a value for every setting, so that defaults of a scale play no part.
    config = config_lib.base(scales.NAMES[0])
    kept = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in config_lib.flatten(found).items()
    }
    declared = config_lib.declared()
    kept = {key: known.default for key, known in declared.items() if known.added} | kept
    if missing := [key for key in declared if key not in kept]:
        raise ValueError(f"{path} lacks the setting {missing[0]}: it is from another version.")
    config = config_lib.override(config, kept)
    chosen = config_lib.parse_assignments(assignments)
    run = make_run(config_lib.override(config, chosen))
    return dataclasses.replace(run, name=paths.absolute(directory).name)


def status(directory: epath.Path) -> Status:
    """The training status of a run, by the files in its directory."""
    if (directory / FINISHED_FILE).exists():
        return "finished"
    if (directory / ERROR_FILE).exists():
        return "failed"
    return "unfinished" if directory.exists() else "to do"


def finish(directory: epath.Path, step: int, seconds: float) -> None:
    """Marks a run as finished; there is a checkpoint of its last step."""
    content = {"step": step, "train_seconds": round(seconds, 3)}
    files.write_json(directory / FINISHED_FILE, content)
    (directory / ERROR_FILE).unlink(missing_ok=True)


def last_step(directory: epath.Path) -> int | None:
    """The last step of a finished run; None where it is not finished.

    Raises:
        ValueError: the file that says so is damaged.
    """
    path = directory / FINISHED_FILE
    if not path.exists():
        return None
    content = files.read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("step"), int):
        raise ValueError(f"{path} does not say at which step; remove it to have the run go on.")
    return content["step"]


def best_step(directory: epath.Path) -> int | None:
    """The step of a finished run's best checkpoint; None where it was never asked for."""
    path = directory / FINISHED_FILE
    return files.read_object(path).get("best") if last_step(directory) is not None else None


def note_best(directory: epath.Path, step: int) -> None:
    """Records the step of a finished run's best checkpoint, so that it is looked for once."""
    if last_step(directory) is not None and best_step(directory) != step:
        path = directory / FINISHED_FILE
        files.write_json(path, {**files.read_object(path), "best": step})


def saved_steps(directory: epath.Path) -> set[int]:
    """The steps that the run of a directory has checkpoints of."""
    return checkpoint.steps(directory / train.CHECKPOINTS_DIR)


def shape(run: Run) -> str:
    """The key of runs that can be trained as one program."""
    flat = config_lib.flatten(run.config)
    shared = {key: value for key, value in flat.items() if not config_lib.of_member(key)}
    return json.dumps(shared, sort_keys=True)


def takes_longer(settings: config_lib.Settings) -> bool:
    """Whether the run takes more steps than `train.steps`, to see as many problems."""
    # A probe's batch is of problems.
    if settings.adaptation.kind == PROBE:
        return False
    return settings.train.budget == "problems" and settings.mistakes.rate > 0
