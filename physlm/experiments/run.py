"""One run of a study: its configuration, its identity, its directory."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ml_collections import ConfigDict

from physlm import checkpoint, train
from physlm.experiments import config as config_lib
from physlm.experiments import results

ERROR_FILE = "error.txt"

Status = Literal["finished", "unfinished", "failed", "to do"]

# Settings that decide how fast a run goes, how often it speaks and what it keeps, but not what it
# computes. They stay out of the identity, so that a run begun on one machine is found, and resumed
# or skipped, on another. (A mesh of another shape adds the same numbers in another order.)
_NOT_IDENTITY = (
    "mesh",
    "model.scan",
    "model.remat",
    "model.kernel",
    "model.positions",
    "train.accumulate",
    "train.log_every",
    "train.save_every",
    "train.keep",
    "evaluate.batch",
)

# Settings in which runs of one population may differ, beside all of their mistakes.
_OF_A_MEMBER = ("seed", "optimizer.learning_rate")

_SHORT_NAMES = {
    "mistakes.rate": "retry_rate",
    "mistakes.kind": "kind",
    "mistakes.mask": "mask",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One resolved configuration of a study, ready to be executed.

    Attributes:
        name: name of its directory: the condition and seed in words, and the hash.
        config: the resolved configuration as plain JSON data.
        condition: what sets the run apart from the others, the seed excluded.
        settings: the same configuration as the checked dataclasses of each room.
    """

    name: str
    config: Mapping[str, Any]
    condition: Mapping[str, Any]
    settings: config_lib.Settings

    @property
    def tokens(self) -> int:
        """Number of tokens that the whole training sees."""
        return self.tokens_after(self.settings.train.steps)

    def tokens_after(self, steps: int) -> int:
        """Number of tokens that the first `steps` training steps see."""
        return steps * self.settings.train.batch * self.settings.windows.window


def make_run(config: ConfigDict, varied: Iterable[str]) -> Run:
    """The run of a resolved configuration.

    Args:
        config: study, scale, seed and all sections.
        varied: dotted keys that set this run apart; their values make up its condition, as far as
            they can change the result. The rate of mistakes always belongs to it.

    Raises:
        ValueError: a section of the configuration is refused by its room.
    """
    settings = config_lib.resolve(config)
    flat = config_lib.flatten(config)
    apart = {key for key in varied if _decides(key)} - {"mistakes.rate", "seed"}
    keys = ["mistakes.rate", *sorted(apart)]
    condition = {short_name(key, flat): flat[key] for key in keys}
    # Through JSON, so that a run read back and a run planned are equal (tuples become lists).
    plain = json.loads(json.dumps(config.to_dict()))
    condition = json.loads(json.dumps(condition))
    words = [f"{name}={_in_a_path(value)}" for name, value in condition.items()]
    name = ",".join([*words, f"seed={config.seed}"])
    # A hundred varied settings would not fit into a file name; the hash keeps them apart.
    return Run(f"{name[:150]}-{identity(plain)}", plain, condition, settings)


def short_name(key: str, flat: Mapping[str, Any]) -> str:
    """How a condition calls the setting `key`: its last part, where no other section has it."""
    if key in _SHORT_NAMES:
        return _SHORT_NAMES[key]
    last = key.rpartition(".")[2]
    taken = [*_SHORT_NAMES.values(), *(other.rpartition(".")[2] for other in flat if other != key)]
    return key.replace(".", "_") if last in taken else last


def identity(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that two runs share only if they compute the same.

    They are the beginning of the SHA-256 of the configuration as canonical JSON, without what
    cannot change the result.
    """
    kept = {key: value for key, value in config_lib.flatten(config).items() if _decides(key)}
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def _decides(key: str) -> bool:
    """Whether a setting can change the result of a run."""
    return key not in _NOT_IDENTITY and key.partition(".")[0] not in _NOT_IDENTITY


def status(run: Run, workdir: pathlib.Path) -> Status:
    """How far the run has come in `workdir`, by the files in its directory."""
    directory = workdir / run.name
    if (directory / results.RUN_FILE).exists():
        return "finished"
    if (directory / ERROR_FILE).exists():
        return "failed"
    return "unfinished" if directory.exists() else "to do"


def saved_steps(run: Run, workdir: pathlib.Path) -> set[int]:
    """The steps that the run has checkpoints of."""
    return checkpoint.steps(workdir / run.name / train.CHECKPOINTS_DIR)


def load(directory: pathlib.Path, assignments: Sequence[str] = ()) -> Run:
    """The run of a directory, by the configuration that it holds.

    Args:
        directory: of the run.
        assignments: `key=value` texts over its settings.

    Raises:
        ValueError: there is no run, or a setting is refused.
    """
    path = directory / results.CONFIG_FILE
    if not path.exists():
        raise ValueError(f"{directory} is not the directory of a run: it has no {path.name}.")
    found = json.loads(path.read_text(encoding="utf-8"))
    scale = found.get("scale")
    config_lib.check_scale(scale)
    config = config_lib.base(scale).copy_and_resolve_references()
    config.study = found["study"]
    flat = config_lib.flatten(config)
    kept = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in config_lib.flatten(found).items()
        if key not in ("study", "scale")
    }
    if missing := [key for key in flat if key not in kept and key not in ("study", "scale")]:
        raise ValueError(f"{path} lacks the setting {missing[0]}: it is from another version.")
    config = config_lib.override(config, kept)
    chosen = dict(config_lib.parse_assignment(text) for text in assignments)
    run = make_run(config_lib.override(config, chosen), varied=chosen)
    result = directory / results.RUN_FILE
    condition = run.condition
    if result.exists():
        condition = json.loads(result.read_text(encoding="utf-8"))["condition"]
    return dataclasses.replace(run, name=directory.name, condition=condition)


def shape(run: Run) -> str:
    """What runs have in common that can be trained as one program."""
    return json.dumps(
        {
            key: value
            for key, value in config_lib.flatten(run.config).items()
            if key not in _OF_A_MEMBER and not key.startswith("mistakes.")
        },
        sort_keys=True,
    )


def takes_longer(settings: config_lib.Settings) -> bool:
    """The run takes more steps than `train.steps` to see as many problems."""
    return settings.train.budget == "problems" and settings.mistakes.rate > 0


def _in_a_path(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9._+]+", "-", text).strip("-")
