"""The configuration: its defaults at each scale, changes to it by dotted key, and its checks.

This is the one place of defaults. A study begins with `base(scale)` and changes what it must.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import Spec
from data_gen.windows.stream import check_window
from data_gen.windows.tokenizer import tokenizer
from physlm.architecture import ModelConfig, sized
from physlm.evaluate import EvalConfig
from physlm.optimizer import OptimizerConfig, schedule
from physlm.sharding import MeshConfig
from physlm.train import TrainConfig

SCALES = ("smoke", "quick", "mini", "paper")

# Short ways to write several settings at once.
_ALIASES: dict[str, Callable[[str], dict[str, Any]]] = {
    "model.size": lambda name: {f"model.{key}": value for key, value in sized(name).items()},
}

# Who runs what at which scale is decided by the command line's own arguments.
_FIXED = ("study", "scale")

# The published recipe for `med` (arXiv 2408.16293): GPT2-12-12 with rotary positions. The paper
# leaves some things unstated. Chosen here: loss on all tokens, since masking mistakes alone makes
# sense only then; GPT-2's initialisation and epsilons; a head of its own, since the vocabulary is
# small; gradients clipped at 1, which does nothing where they are tame.
_PAPER: dict[str, dict[str, Any]] = {
    "data": {
        "max_op": 15,
        "max_edges": 20,
        "min_depth": 2,
        "max_depth": 4,
        "min_width": 2,
        "max_width": 4,
        "modulus": 23,
        "order": "pq",
        "solution": "shortest",
        "hierarchies": 4,
        "subcategories": 5,
        "names": 20,
        "names_file": "",
        "letters": 52,
        "split": "train",
        "unsplit_op": 2,
        "tokenizer": "word",
        "tokenizer_files": "",
    },
    "mistakes": {
        "kind": "retry",
        "rate": 0.0,
        "whole": False,
        "mend": "back",
        "late": 0,
        "mask": "none",
    },
    "model": {
        "layers": 12,
        "heads": 12,
        "head_dim": 64,
        "variant": "gpt2",
        "kv_heads": 0,
        "mlp_width": 0,
        "experts": 0,
        "experts_per_token": 2,
        "balance": 0.02,
        "qk_norm": False,
        "logit_cap": 0.0,
        "tied": False,
        "dropout": 0.0,
        "positions": 2048,
        "rotary_base": 10000.0,
        "norm_eps": 1e-5,
        "init_std": 0.02,
        "dtype": "bfloat16",
        "scan": False,
        "remat": "none",
        "kernel": "auto",
    },
    "optimizer": {
        "name": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 1000,
        "final_fraction": 0.01,
        "weight_decay": 0.05,
        "beta1": 0.9,
        "beta2": 0.98,
        "epsilon": 1e-8,
        "clip_norm": 1.0,
    },
    "train": {
        "steps": 100_000,
        "budget": "tokens",
        "batch": 512,
        "window": 768,
        "loss_on": "all",
        "attention": "window",
        "pack": "cut",
        "accumulate": 1,
        "log_every": 100,
        "save_every": 1000,
        "keep": 2,
    },
    # The paper generates up to 2048 tokens, of which a problem takes up to its window.
    "evaluate": {
        "problems": 4096,
        "batch": 512,
        "beyond": (20, 21, 22, 23),
        "seed": 0,
        "max_new_tokens": 1280,
    },
    "mesh": {
        "data": -1,
        "fsdp": 1,
        "sequence": 1,
        "tensor": 1,
        "population": 0,
        "cpu_devices": 0,
    },
}

# What each smaller scale changes of the published recipe.
_SMALLER: dict[str, dict[str, Any]] = {
    # The published problem class up to op 8, and a model of 27M parameters: small enough for two
    # runs on one accelerator chip within half an hour.
    "mini": {
        "data.max_op": 8,
        "data.max_edges": 15,
        "model.layers": 8,
        "model.heads": 8,
        "optimizer.learning_rate": 1e-3,
        "optimizer.warmup_steps": 200,
        "train.steps": 2500,
        "train.batch": 128,
        "train.window": 512,
        "train.log_every": 50,
        "train.save_every": 500,
        "evaluate.problems": 1024,
        "evaluate.batch": 256,
        "evaluate.beyond": (9, 10, 11, 12),
        "evaluate.max_new_tokens": 768,
    },
    # Two CPU cores teach some thirty million tokens in nine minutes. What a small model is slow
    # to learn is to find a parameter by its two names: two layers of two items, three names for
    # each, make that easy and leave the reasoning. With so few names, other documents of a window
    # would answer for the same parameters, so attention stays within a document. Two heads of 32
    # and a long rotary base leave most of a head unturned over a document, to match names by, which
    # normalised queries and keys learn sooner. Muon, a loss on solutions alone and initial weights
    # as wide as the narrow model wants them (0.02 is GPT-2's, for a width of 768) learn most from
    # so few tokens; few letters leave little that no model can predict. The class has some forty
    # templates of three operations, so few that a split would withhold a way of adding up.
    "quick": {
        "data.max_op": 5,
        "data.max_edges": 4,
        "data.max_depth": 2,
        "data.max_width": 2,
        "data.modulus": 5,
        "data.hierarchies": 1,
        "data.subcategories": 1,
        "data.names": 3,
        "data.letters": 7,
        "data.unsplit_op": 3,
        "model.layers": 4,
        "model.heads": 2,
        "model.head_dim": 32,
        "model.qk_norm": True,
        "model.rotary_base": 1e6,
        "model.init_std": 0.1,
        "model.dtype": "float32",
        "optimizer.name": "muon",
        "optimizer.learning_rate": 5e-3,
        "optimizer.warmup_steps": 100,
        "optimizer.weight_decay": 0.01,
        "train.steps": 7000,
        "train.batch": 16,
        "train.window": 256,
        "train.loss_on": "solution",
        "train.attention": "document",
        "train.log_every": 50,
        "train.save_every": 500,
        "evaluate.problems": 512,
        "evaluate.batch": 128,
        "evaluate.beyond": (6,),
        "evaluate.max_new_tokens": 256,
    },
    # Seconds, for tests: everything runs, nothing is learnt.
    "smoke": {
        "data.max_op": 3,
        "data.max_edges": 6,
        "data.max_depth": 3,
        "data.max_width": 2,
        "data.modulus": 5,
        "data.hierarchies": 1,
        "data.subcategories": 1,
        "data.names": 3,
        "data.letters": 12,
        "model.layers": 2,
        "model.heads": 2,
        "model.head_dim": 8,
        "model.dtype": "float32",
        "optimizer.name": "muon",
        "optimizer.warmup_steps": 4,
        "train.steps": 20,
        "train.batch": 8,
        "train.window": 128,
        "train.loss_on": "solution",
        "train.log_every": 5,
        "train.save_every": 5,
        "evaluate.problems": 16,
        "evaluate.batch": 16,
        "evaluate.beyond": (4, 5),
        "evaluate.max_new_tokens": 96,
        "mesh.population": 8,
    },
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A configuration, each section as the checked value that its room works with."""

    seed: int
    data: Spec
    mistakes: Mistakes
    model: ModelConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    evaluate: EvalConfig
    mesh: MeshConfig

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed is {self.seed}; it must be in 0..{2**31 - 1}.")
        check_window(self.data, self.train.window, self.mistakes)
        for op in self.evaluate.beyond:
            if op <= self.data.max_op:
                raise ValueError(
                    f"evaluate.beyond has {op}; it must lie above data.max_op, {self.data.max_op}."
                )
            # That class must exist too, and fit; its own checks say why it does not.
            try:
                check_window(dataclasses.replace(self.data, op=op), self.train.window)
            except ValueError as error:
                raise ValueError(f"evaluate.beyond has {op}: {error}") from error
        longest = self.train.window + self.evaluate.max_new_tokens
        if longest > self.model.positions:
            raise ValueError(
                f"train.window plus evaluate.max_new_tokens is {longest}; "
                f"it must be at most model.positions, {self.model.positions}."
            )
        # Refuses a warm-up that does not end before the run does.
        schedule(self.optimizer, self.train.steps)


def check_scale(scale: str) -> None:
    """Raises ValueError where there is no such scale, naming those that there are."""
    if scale not in SCALES:
        raise ValueError(f"unknown scale {scale!r}: there are {', '.join(SCALES)}.")


def base(scale: str) -> ConfigDict:
    """The defaults at `scale`, for a study to begin with; `paper` is the published recipe.

    Raises:
        ValueError: there is no such scale.
    """
    check_scale(scale)
    config = ConfigDict({"study": "", "scale": scale, "seed": 0, **_PAPER})
    return override(config, _SMALLER.get(scale, {}))


def override(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy of `config` with the values of some dotted keys replaced.

    Raises:
        ValueError: a key does not exist, or its value is not of the default's type.
    """
    changed = config.copy_and_resolve_references()
    for key, value in expanded(changes).items():
        default = _default(config, key)
        # A whole number is a fine float, and must then be hashed as one.
        converted = float(value) if type(default) is float and type(value) is int else value
        # The tuples that there are hold whole numbers.
        elements = converted if isinstance(converted, tuple) else ()
        if type(converted) is not type(default) or any(type(item) is not int for item in elements):
            raise _wrong_type(key, value, default)
        section, _, name = key.rpartition(".")
        (changed[section] if section else changed)[name] = converted
    return changed


def expanded(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes with what `model.size=12-12` is short for in its place.

    Raises:
        ValueError: a size is not written so.
    """
    found: dict[str, Any] = {}
    for key, value in changes.items():
        found |= _ALIASES[key](value) if key in _ALIASES else {key: value}
    return found


def parse_assignment(config: ConfigDict, text: str) -> tuple[str, Any]:
    """The key and the typed value of a `key=value` text.

    Tuples are written with commas (`evaluate.beyond=5,6`), truth values as true and false.

    Raises:
        ValueError: there is no `=`, no such key, or the value is not of the default's type.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text!r} is not of the form key=value.")
    if key in _ALIASES:
        return key, value
    return key, _parse(key, value, _default(config, key))


def flatten(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """All settings by their dotted keys, in the configuration's order."""
    return dict(_leaves(config.to_dict() if isinstance(config, ConfigDict) else config))


def resolve(config: ConfigDict) -> Settings:
    """The configuration as checked values.

    Raises:
        ValueError: a room refuses its section; the sentence names the field.
    """
    data = Spec(**config.data)
    return Settings(
        seed=config.seed,
        data=data,
        mistakes=Mistakes(**config.mistakes),
        model=ModelConfig(vocab=tokenizer(data).size, window=config.train.window, **config.model),
        optimizer=OptimizerConfig(**config.optimizer),
        train=TrainConfig(**config.train),
        evaluate=EvalConfig(**config.evaluate),
        mesh=MeshConfig(**config.mesh),
    )


def _default(config: ConfigDict, key: str) -> Any:
    leaves = flatten(config)
    settable = [name for name in [*leaves, *_ALIASES] if name not in _FIXED]
    if key in leaves and key in settable:
        return leaves[key]
    if key in _FIXED:
        raise ValueError(f"{key!r} cannot be set: it is an argument of the command line itself.")
    section = key.partition(".")[0]
    inside = [name for name in settable if name.startswith(f"{section}.")]
    if key == section and inside:
        raise ValueError(f"{key!r} is a section: its settings are {', '.join(inside)}.")
    close = difflib.get_close_matches(key, settable, n=1)
    hint = f" (nearest: {close[0]})" if close else ""
    top = [name for name in settable if "." not in name]
    top += list(dict.fromkeys(f"{n.partition('.')[0]}.*" for n in settable if "." in n))
    raise ValueError(f"unknown setting {key!r}{hint}: there are {', '.join(inside or top)}.")


def _parse(key: str, text: str, default: Any) -> Any:
    if isinstance(default, tuple):
        parts = [part for part in text.split(",") if part]
        return tuple(_parse(key, part, 0) for part in parts)
    parsers: dict[type, Callable[[str], Any]] = {
        bool: {"true": True, "false": False}.__getitem__,
        int: int,
        float: _finite,
        str: str,
    }
    try:
        return parsers[type(default)](text)
    except (KeyError, ValueError):
        raise _wrong_type(key, text, default) from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _wrong_type(key: str, value: Any, default: Any) -> ValueError:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if isinstance(default, tuple):
        wanted = "whole numbers with commas between them"
    else:
        wanted = names[type(default)]
    return ValueError(f"{key}={value!r} is of the wrong type: it must be {wanted}, as {default!r}.")


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
