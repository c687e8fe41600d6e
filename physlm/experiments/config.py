"""The configuration of a run: its settings by dotted key, its scales, and its checks.

Each setting is declared, with default and meaning, beside the code that reads it (`SECTIONS` says
where); the defaults are the published recipe. `scales` has what smaller scales change of them. A
study begins with `base(scale)` and changes what it must.
"""

import contextlib
import dataclasses
import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from data_gen import settings
from data_gen.settings import RefusedError, Setting
from data_gen.solutions.language import vocabulary
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import Spec
from data_gen.windows import gpt2, recorded, stream
from data_gen.windows.configuration import Windows
from data_gen.windows.questions import answers
from data_gen.windows.tokenizer import tokenizer
from physlm import model as model_lib
from physlm import probe
from physlm.adaptation import FULL, PROBE, Adaptation, AdaptationConfig
from physlm.architecture import ModelConfig, sized
from physlm.cells import EvalConfig
from physlm.experiments import scales
from physlm.optimizer import OptimizerConfig, schedule
from physlm.practice import PARENT, PracticeConfig
from physlm.probe import ProbeConfig
from physlm.sharding import MeshConfig
from physlm.start import CARRIED, ParentConfig
from physlm.step import Learning, next_token
from physlm.train import TrainConfig

# Which dataclasses declare the settings of a section.
SECTIONS: Mapping[str, tuple[type, ...]] = {
    "data": (Spec,),
    "mistakes": (Mistakes,),
    "model": (ModelConfig,),
    "optimizer": (OptimizerConfig,),
    "train": (TrainConfig, Windows, PracticeConfig),
    "parent": (ParentConfig,),
    "adaptation": (AdaptationConfig,),
    "probe": (ProbeConfig,),
    "evaluate": (EvalConfig,),
    "mesh": (MeshConfig,),
}

# These are for test sets alone: a run trains on all numbers of operations, and its cells fix them
# (`evaluate.beyond`); another question about a problem changes its number of operations.
_NOT_OF_A_RUN = ("data.op", "data.reask")

# Study and scale are arguments of the command line, not settings.
ARGUMENTS = ("study", "scale")

# Short ways to write several settings at once.
_ALIASES: dict[str, Callable[[str], dict[str, Any]]] = {
    "model.size": lambda name: {f"model.{key}": value for key, value in sized(name).items()},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A resolved configuration: one checked dataclass for each section.

    Raises:
      ValueError: values of several sections do not fit together.
    """

    seed: int = settings.whole(
        0, "Seed of a run's data and of its initial weights.", high=2**31 - 1, of_member=True
    )
    data: Spec
    mistakes: Mistakes
    model: ModelConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    windows: Windows
    practice: PracticeConfig
    parent: ParentConfig
    adaptation: AdaptationConfig
    probe: ProbeConfig
    evaluate: EvalConfig
    mesh: MeshConfig

    @property
    def learning(self) -> Learning:
        """The objective, and the parameters that are trained."""
        probes = self.adaptation.kind == PROBE
        count = answers(self.probe.task, self.data) if probes else 0
        objective = probe.objective if probes else next_token
        apart = probes and self.probe.reads == probe.FROZEN
        return Learning(Adaptation(self.adaptation, count, apart), objective)

    def __post_init__(self) -> None:
        settings.check(self)
        with _of("mistakes"):
            self.mistakes.check(self.data)
        with _of("train"):
            self.windows.check(self.data, self.mistakes)
        self._check_records()
        beyond, most = self.evaluate.beyond, self.data.max_op
        if beyond and min(beyond) <= most:
            raise RefusedError(
                "evaluate.beyond", beyond, f"whole numbers above data.max_op, {most}"
            )
        within = self.evaluate.within
        if within and max(within) > most:
            raise RefusedError(
                "evaluate.within", within, f"whole numbers up to data.max_op, {most}"
            )
        for op in (*beyond, *self.evaluate.reasked):
            # That class must exist too, and fit; its own checks say why it does not.
            try:
                self.windows.check(dataclasses.replace(self.data, op=op))
            except ValueError as error:
                name = "beyond" if op in beyond else "reasked"
                raise ValueError(f"evaluate.{name} has {op}: {error}") from error
        if self.evaluate.window_tokens == "gpt2" and self.data.tokenizer != "gpt2":
            try:
                gpt2.lengths(vocabulary(self.data))
            except ValueError as error:
                allowed = f"own with data.names_file, since {str(error).rstrip('.')}"
                raise RefusedError("evaluate.window_tokens", "gpt2", allowed) from error
        longest = self.windows.window + self.evaluate.max_new_tokens
        if longest > self.model.positions:
            raise RefusedError(
                "train.window plus evaluate.max_new_tokens",
                longest,
                f"at most model.positions, {self.model.positions}",
            )
        if self.train.steps * self.train.batch > stream.WINDOW_LIMIT:
            most = stream.WINDOW_LIMIT // self.train.batch
            allowed = f"at most {most} of train.batch = {self.train.batch} windows each"
            raise RefusedError("train.steps", self.train.steps, allowed)
        # Refuses a warm-up that does not end before the run does.
        schedule(self.optimizer, self.train.steps)
        if self.adaptation.kind != FULL:
            self.learning.adaptation.places(model_lib.shapes(self.model))
        if self.adaptation.kind == PROBE and self.mesh.sequence > 1:
            raise RefusedError("mesh.sequence", self.mesh.sequence, "1 for a probe")
        if self.adaptation.kind == PROBE and self.evaluate.recipe.asks:
            raise RefusedError(
                "evaluate.decode", self.evaluate.decode, "one that asks nobody, for a probe"
            )
        if self.parent.optimizer == CARRIED and not (
            self.parent.run and self.adaptation.kind == FULL
        ):
            allowed = "'fresh' without parent.run, or where adaptation.kind is not full"
            raise RefusedError("parent.optimizer", CARRIED, allowed)

    def _check_records(self) -> None:
        """Raises where records cannot be trained on, or other settings exclude them."""
        records = self.practice.records
        if not records:
            return
        if self.adaptation.kind == PROBE:
            raise RefusedError("train.records", records, "empty for a probe")
        if self.train.budget == "problems":
            raise RefusedError("train.budget", self.train.budget, "tokens where there are records")
        if records == PARENT:
            if not self.parent.run:
                allowed = "a file, or empty, where there is no parent.run"
                raise RefusedError("train.records", records, allowed)
            if self.data.split != "train":
                allowed = f"'train' where train.records is {PARENT!r}, to leave test problems alone"
                raise RefusedError("data.split", self.data.split, allowed)
            return
        with _of("train"):
            recorded.of_file(records, self.windows.window, self.data)


@functools.cache
def declared() -> Mapping[str, Setting]:
    """All settings of a run by their dotted keys, section by section."""
    found = settings.of(Settings)
    for section, parts in SECTIONS.items():
        for part in parts:
            found |= {f"{section}.{name}": known for name, known in settings.of(part).items()}
    known = {key: known for key, known in found.items() if key not in _NOT_OF_A_RUN}
    return types.MappingProxyType(known)


def decides(key: str) -> bool:
    """Whether the setting of a dotted key can change a run's weights.

    Raises:
      ValueError: there is no such key.
    """
    judges = key.partition(".")[0] == "evaluate"
    return key not in ARGUMENTS and _setting(key).decides and not judges


def goes_without_saying(key: str, value: Any) -> bool:
    """Whether a value is left out of identities: that of runs from before the setting existed.

    Raises:
      ValueError: there is no such key.
    """
    return _setting(key).goes_without_saying(value)


def of_member(key: str) -> bool:
    """Whether runs that are trained as one program may differ in the setting of a dotted key.

    Raises:
      ValueError: there is no such key.
    """
    return key in ARGUMENTS or _setting(key).of_member


def check_scale(scale: str) -> None:
    """Raises ValueError where there is no such scale, naming those that there are."""
    if scale not in scales.NAMES:
        raise ValueError(f"unknown scale {scale!r}: there are {', '.join(scales.NAMES)}.")


def base(scale: str) -> ConfigDict:
    """The configuration at `scale`, for a study to begin with; `paper` is the published recipe.

    Raises:
      ValueError: there is no such scale.
    """
    check_scale(scale)
    config = ConfigDict({"study": "", "scale": scale, **{section: {} for section in SECTIONS}})
    config.update_from_flattened_dict({key: known.default for key, known in declared().items()})
    config.lock()
    return override(config, scales.OF_A_RUN | scales.CHANGES.get(scale, {}))


def override(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy of `config` with the values of some dotted keys replaced.

    Raises:
      ValueError: a key does not exist, or its value is not allowed.
    """
    changed = config.copy_and_resolve_references()
    values = expanded(changes)
    for key, value in values.items():
        _setting(key).check(key, value)
    changed.update_from_flattened_dict(values)
    return changed


def expanded(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes with `model.size=12-12` replaced by the settings that it stands for.

    Raises:
      ValueError: a size is not written so.
    """
    found: dict[str, Any] = {}
    for key, value in changes.items():
        found |= _ALIASES[key](value) if key in _ALIASES else {key: value}
    return found


def parse_assignment(text: str) -> tuple[str, Any]:
    """The key and the typed value of a `key=value` text.

    Raises:
      ValueError: there is no `=`, no such key, or the value is not allowed.
    """
    key, value = settings.assignment(text)
    return key, value if key in _ALIASES else _setting(key).parse(key, value)


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """The typed values of `key=value` texts, by key.

    Raises:
      ValueError: one is refused, or a key is given twice. (What `model.size` is short for may be
        changed after it.)
    """
    settings.assignments(texts)
    return dict(map(parse_assignment, texts))


def flatten(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """All settings, study and scale among them, by their dotted keys."""
    plain = config.to_dict() if isinstance(config, ConfigDict) else config
    return flatten_dict(plain, sep=".")


def resolve(config: ConfigDict) -> Settings:
    """The configuration as checked values.

    Raises:
      ValueError: a value is not allowed; the sentence names the setting.
    """
    data = _made(Spec, config, "data")
    with _of("data"):
        vocab = tokenizer(data).size
    windows = _made(Windows, config, "train")
    return Settings(
        seed=config.seed,
        data=data,
        mistakes=_made(Mistakes, config, "mistakes"),
        model=_made(ModelConfig, config, "model", vocab=vocab, window=windows.window),
        optimizer=_made(OptimizerConfig, config, "optimizer"),
        train=_made(TrainConfig, config, "train"),
        windows=windows,
        practice=_made(PracticeConfig, config, "train"),
        parent=_made(ParentConfig, config, "parent"),
        adaptation=_made(AdaptationConfig, config, "adaptation"),
        probe=_made(ProbeConfig, config, "probe"),
        evaluate=_made(EvalConfig, config, "evaluate"),
        mesh=_made(MeshConfig, config, "mesh"),
    )


_Part = TypeVar("_Part")


def _made(part: type[_Part], config: ConfigDict, section: str, **facts: int) -> _Part:
    """A dataclass made from the settings of a section, and from facts that are no settings."""
    known = declared()
    names = [name for name in settings.of(part) if f"{section}.{name}" in known]
    with _of(section):
        return part(**{name: config[section][name] for name in names}, **facts)


@contextlib.contextmanager
def _of(section: str) -> Iterator[None]:
    """Adds the section's name to the error about one of its settings."""
    try:
        yield
    except RefusedError as error:
        raise error.within(section) from None


def _setting(key: str) -> Setting:
    known = declared()
    if key in known:
        return known[key]
    if key in ARGUMENTS:
        raise ValueError(f"{key!r} cannot be set: it is an argument of the command line itself.")
    names = [*known, *_ALIASES]
    if inside := sorted(name for name in names if name.startswith(f"{key}.")):
        raise ValueError(f"{key!r} is a section: its settings are {', '.join(inside)}.")
    raise settings.unknown(key, names)
