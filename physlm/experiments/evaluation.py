"""Evaluations: protocols by which models are judged, each with an identity of its own."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

from etils import epath

from data_gen import settings as settings_lib
from physlm.cells import EvalConfig
from physlm.decoding import recipe
from physlm.experiments.identity import digest
from physlm.experiments.run import ERROR_FILE, best_step, in_a_path, last_step

EVALUATIONS_DIR = "evaluations"
RESULT_FILE = "result.json"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A protocol by which the model of any run, after any step, can be judged.

    Attributes:
        settings: the test problems, how tokens are chosen, and the room for a solution.
    """

    settings: EvalConfig

    @property
    def facts(self) -> dict[str, Any]:
        """The settings that decide the results of a given model, as plain JSON data."""
        known = settings_lib.of(self.settings)
        values = {name: getattr(self.settings, name) for name in known if known[name].decides}
        values["decode"] = recipe.canonical(values["decode"])
        return json.loads(json.dumps(values))

    @property
    def config(self) -> dict[str, Any]:
        """All that identifies the evaluation, as plain JSON data.

        For a strategy from a file of the user's own that includes the content of the file (`code`).
        """
        known = settings_lib.of(self.settings)
        facts = self.facts
        decode = facts.pop("decode")
        unsaid = {n for n in known if known[n].goes_without_saying(getattr(self.settings, n))}
        kept = {name: value for name, value in facts.items() if name not in unsaid}
        code = recipe.code_of(decode)
        return {"decode": decode, "evaluate": kept} | ({"code": code} if code else {})


def name_of(config: Mapping[str, Any], step: int) -> str:
    """The name of an evaluation's directory: its protocol in words, and its hash.

    Args:
        config: of the evaluation.
        step: after which the model is judged.
    """
    # The name begins with the step, so how that was chosen need not be said.
    evaluate = {key: value for key, value in config["evaluate"].items() if key != "checkpoint"}
    words = [f"step={step}", in_a_path(config["decode"]), f"problems={evaluate['problems']}"]
    if evaluate.get("within"):
        words.append(f"within={in_a_path(evaluate['within'])}")
    if evaluate["beyond"]:
        words.append(f"beyond={in_a_path(evaluate['beyond'])}")
    return f"{','.join(words)[:150]}-{digest({'step': step, **config, 'evaluate': evaluate})}"


def directory_of(run: epath.Path, config: Mapping[str, Any], step: int) -> epath.Path:
    """The directory of an evaluation, inside that of its run."""
    return run / EVALUATIONS_DIR / name_of(config, step)


def result_of(run: epath.Path, config: Mapping[str, Any]) -> epath.Path | None:
    """The result file of an evaluation of a finished run; None where the run is not finished.

    The file exists once the evaluation is done. None, too, where the best checkpoint is asked for
    and nobody has determined yet which that is.
    """
    best = config["evaluate"].get("checkpoint") == "best"
    step = best_step(run) if best else last_step(run)
    return None if step is None else directory_of(run, config, step) / RESULT_FILE


def status(run: epath.Path, config: Mapping[str, Any]) -> Literal["finished", "failed", "to do"]:
    """How far the evaluation of a run at its last step has come, by the files there are."""
    path = result_of(run, config)
    if path is not None and path.exists():
        return "finished"
    failed = path is not None and (path.parent / ERROR_FILE).exists()
    return "failed" if failed else "to do"
