"""The identity of a run: the settings that decide its weights, and their hash."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from data_gen.solutions.language import vocabulary
from data_gen.solutions.mistakes import Mistakes
from data_gen.solutions.steps import wrong_sentences
from data_gen.spec import Spec
from data_gen.windows.tokenizer import tokenizer
from physlm.adaptation import FULL, PROBE
from physlm.experiments import config as config_lib
from physlm.practice import PARENT


def of_run(config: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """The settings that decide the weights of a run, by dotted key.

    Two runs with equal settings here have equal weights after each step, up to the order in which
    devices add numbers. A file counts by its content: a hash stands in place of its path.

    Args:
        config: the resolved configuration.
        spec: its section `data`, checked.
    """
    flat = config_lib.flatten(config)
    facts = {
        key: value
        for key, value in flat.items()
        if config_lib.decides(key) and not config_lib.goes_without_saying(key, value)
    }
    if flat["mistakes.rate"]:
        mistakes = Mistakes(flat["mistakes.kind"], rate=flat["mistakes.rate"])
        facts["mistakes.kind"] = mistakes.kind_by_name
        if wrong_sentences(mistakes):
            # In earlier versions a wrong sentence could stand twice in a row, word for word.
            facts["mistakes.sentences"] = "distinct"
    else:
        # Then no other setting of mistakes is read, and a budget of problems takes no more steps.
        unread = {key for key in facts if key.startswith("mistakes.")} | {"train.budget"}
        # What is masked of records is masked by the same setting.
        read = {"mistakes.rate", *(("mistakes.mask",) if flat.get("train.records") else ())}
        facts = {key: facts[key] for key in facts if key not in unread - read}
    unread = {key for key in facts if key.startswith(_unread(flat))}
    facts = {key: facts[key] for key in facts if key not in unread}
    if "parent.run" in facts:
        facts["parent.run"] = hash_of(flat["parent.run"])
    if records := flat.get("train.records"):
        # The parent's own mistakes follow from the parent and from how it is asked.
        facts["train.records"] = records if records == PARENT else _content_of_file(records)
    facts["data.names_file"] = digest(vocabulary(spec).tokens) if spec.names_file else ""
    facts["data.tokenizer_files"] = _content_of_table(spec) if spec.tokenizer == "gpt2" else ""
    return facts


# A probe reads documents one by one, not packed into windows, and has another loss.
_NOT_OF_A_PROBE = (
    "train.attention", "train.budget", "train.loss_on", "train.pack", "mistakes.mask",
)  # fmt: skip


def _unread(flat: Mapping[str, Any]) -> tuple[str, ...]:
    """Sections, and single settings, that a run of this configuration never reads."""
    # Configurations of earlier versions lack these settings.
    kind, parent = flat.get("adaptation.kind", FULL), flat.get("parent.run", "")
    read = {"parent.": parent, "adaptation.": kind != FULL, "probe.": kind == PROBE}
    unread = tuple(section for section, is_read in read.items() if not is_read)
    records = flat.get("train.records", "")
    unread += () if records else ("train.records_share",)
    unread += () if records == PARENT else ("train.records_problems", "train.records_decode")
    return unread + (_NOT_OF_A_PROBE if kind == PROBE else ())


def hash_of(name: str) -> str:
    """The hash at the end of a run's name, or of its directory's: its identity."""
    return pathlib.PurePath(name).name.rpartition("-")[2]


def digest(content: Any) -> str:
    """The first eight hexadecimal digits of the SHA-256 of a value as canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def _content_of_file(path: str) -> str:
    """A hash of what a file holds, which has been read before."""
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:8]


def _content_of_table(spec: Spec) -> str:
    table = tokenizer(spec)
    markers = (table.problem, table.solution, table.answer, table.end)
    return digest([table.ids_VxK.tolist(), table.size, *markers])
