"""The data of a report: the rows of a study, and what else is known of their runs."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from data_gen import settings
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import Spec
from data_gen.text import lines
from physlm import model, paths
from physlm.experiments import accounts, condition, files, outcomes, results
from physlm.experiments import run as run_lib
from physlm.experiments import versions as versions_lib
from physlm.experiments.accounts import Accounts, Training
from physlm.experiments.ancestry import directory_of
from physlm.experiments.condition import short_name
from physlm.experiments.config import flatten
from physlm.experiments.evaluation import EVALUATIONS_DIR, RESULT_FILE
from physlm.experiments.figures.drawing import Curve, Trained
from physlm.experiments.identity import digest
from physlm.experiments.run import CONFIG_FILE, rounded
from physlm.experiments.store import Store
from physlm.experiments.summary import Line, summarise
from physlm.journal import METRICS_FILE

# Points of a curve of losses; a figure cannot show more.
_POINTS = 400

# What a report tells of the versions by which a run was trained.
_TOLD = ("physlm", "git_commit", "jax", "device_kind", "cpu")


class _GoneError(Exception):
    """A run that another one names is not there any more."""


@dataclasses.dataclass(frozen=True)
class Material:
    """A study's results in a store.

    Attributes:
        directory: of what the study shows.
        rows: of `results.jsonl`.
    """

    directory: epath.Path
    rows: Sequence[results.Row]

    @property
    def store(self) -> Store:
        """Where the runs are, or were."""
        return Store(self.directory.parent)

    @functools.cached_property
    def evaluations(self) -> dict[tuple[str, str], epath.Path]:
        """The directory of each evaluation, by its run and its name."""
        return {
            (row["run"], row["evaluation"]): self.store.of_run(row["run"])
            / EVALUATIONS_DIR
            / row["evaluation"]
            for row in self.rows
        }

    @functools.cached_property
    def configs(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The configuration of each run and evaluation whose directories are still there."""
        found = {}
        for (run, name), evaluation in self.evaluations.items():
            paths = (self.store.of_run(run) / CONFIG_FILE, evaluation / CONFIG_FILE)
            if all(path.exists() for path in paths):
                of_run, of_evaluation = map(files.read_object, paths)
                of_evaluation.pop("step", None)
                found[run, name] = of_run | of_evaluation
        return found

    @functools.cached_property
    def _kept(self) -> tuple[outcomes.All, int]:
        return outcomes.kept(self.directory / outcomes.FILE)

    @functools.cached_property
    def outcomes(self) -> dict[tuple[str, str], outcomes.OfCells]:
        """The outcome of every problem, from solutions in the store or an earlier report."""
        known, _ = self._kept
        return {
            key: outcomes.read(path) or known.get(key, {}) for key, path in self.evaluations.items()
        }

    @functools.cached_property
    def _told(self) -> tuple[Accounts, int]:
        return accounts.kept(self.directory / accounts.FILE)

    @functools.cached_property
    def accounts(self) -> Accounts:
        """The parts of results and the training of runs, from the store or an earlier report."""
        known, _ = self._told
        cells = {}
        for key, directory in self.evaluations.items():
            path = directory / RESULT_FILE
            for cell in results.cells(path) if path.exists() else ():
                cells[*key, cell["cell"]] = {n: cell[n] for n in results.PARTS if n in cell}
        shown = [(*_entry(row), row["cell"]) for row in self.rows]
        runs = dict.fromkeys(run for run, _ in self.evaluations)
        return Accounts(
            {key: cells.get(key, known.cells.get(key, {})) for key in dict.fromkeys(shown)},
            {run: self._training(run) for run in runs},
        )

    def _training(self, run: str) -> Training:
        known, parameters = self._known(run), self._parameters(run)
        judged = [name for of, name in self.evaluations if of == run]
        return Training(
            known.parameters if parameters is None else parameters,
            self._curve(run) or known.losses,
            {name: said for name, said in self._made_by(run).items() if name in _TOLD},
            {name: version for name in judged if (version := self._digests[run, name])},
        )

    def _known(self, run: str) -> Training:
        """What an earlier report knew of a run's training."""
        return self._told[0].runs.get(run, Training())

    @property
    def damaged(self) -> dict[str, int]:
        """How many lines cannot be read, by the name of the file that reports keep."""
        return {outcomes.FILE: self._kept[1], accounts.FILE: self._told[1]}

    @functools.cached_property
    def told(self) -> list[results.Row]:
        """The rows, with the parts of their results where these are known.

        Where runs of one condition differ in what decides them, rows also say which they are of.
        """
        versions = self._versions
        return [
            {
                **row,
                **self.accounts.cells[*_entry(row), row["cell"]],
                "condition": {**row["condition"], **versions.get(_entry(row), {})},
            }
            for row in self.rows
        ]

    @functools.cached_property
    def lines(self) -> list[Line]:
        """The results by condition."""
        return summarise(self.told, self.outcomes)

    @property
    def mixed(self) -> list[str]:
        """Runs of one condition, but of different configurations or releases."""
        names = [f"{run} ({evaluation})" for run, evaluation in self._versions]
        return sorted(names)

    @property
    def makers(self) -> list[str]:
        """By which versions and on which devices runs were trained, in words, as far as known."""
        found: dict[str, int] = {}
        for run in dict.fromkeys(run for run, _ in self.evaluations):
            if said := self._made_by(run):
                commit = str(said.get("git_commit") or "")[:7]
                words = [
                    f"physlm {said.get('physlm')}{f' at {commit}' if commit else ''}",
                    f"jax {said.get('jax')}",
                    str(said.get("device_kind"))
                    + (f" ({cpu})" if (cpu := said.get("cpu")) else ""),
                ]
                found[", ".join(words)] = found.get(", ".join(words), 0) + 1
        return [
            f"{number} run{'s' if number > 1 else ''} by {words}" for words, number in found.items()
        ]

    @functools.cached_property
    def _versions(self) -> dict[tuple[str, str], dict[str, str]]:
        """Labels for entries that look alike to the study but differ, by run and evaluation."""
        alike: dict[str, dict[tuple[str, str], int]] = {}
        for row in self.rows:
            alike.setdefault(_meant(row), {})[_entry(row)] = row["seed"]
        found: dict[tuple[str, str], str] = {}
        for seeds in alike.values():
            known = {entry: self._digests[entry] for entry in seeds}
            again = len(set(seeds.values())) < len(seeds)
            # Of those whose configurations are gone nobody knows; of one seed there is one run.
            if again or len({*known.values()} - {None}) > 1:
                named = {entry: version or " ".join(entry) for entry, version in known.items()}
                if len({(named[entry], seed) for entry, seed in seeds.items()}) < len(seeds):
                    # What differs is not in their configurations: a file, or the code.
                    named = {entry: " ".join(entry) for entry in seeds}
                found |= named
        return {entry: {condition.VERSION: version} for entry, version in found.items()}

    @functools.cached_property
    def _digests(self) -> dict[tuple[str, str], str | None]:
        return {entry: self._version(*entry) for entry in self.evaluations}

    def _version(self, run: str, evaluation: str) -> str | None:
        """What tells apart results that are no seeds of one condition; None where it is not known.

        That is what decides a run, and how it is judged, but for the seed, likewise what decides
        the run that it begins with and the probe that is asked; and the release of this package.
        Commits, other packages and devices round otherwise, and tell nothing apart.
        """
        if (run, evaluation) not in self.configs:
            return self._known(run).versions.get(evaluation)
        known = self._run(run)
        judged = files.read_object(self.evaluations[run, evaluation] / CONFIG_FILE)
        judged.pop("step", None)
        try:
            decides = {**(self._decides(known) if known else {}), **flatten(judged)}
            if probe := decides.get("evaluate.probe"):
                decides["evaluate.probe"] = self._named(probe)
        except _GoneError:
            return self._known(run).versions.get(evaluation)
        decides.pop("seed", None)
        return digest([self._made_by(run).get("physlm"), decides])

    def _decides(self, run: run_lib.Run) -> dict[str, Any]:
        """What decides a run but for the seed; its parent's likewise, in place of its name."""
        parent = run.settings.parent.run
        facts = {key: value for key, value in run.facts.items() if key != "seed"}
        return {**facts, **({"parent.run": self._named(parent)} if parent else {})}

    def _named(self, name: str) -> list[Any]:
        """What decides a run that another one names, and its release.

        Raises:
            _GoneError: it is not there any more.
        """
        run = self._run(name)
        if run is None:
            raise _GoneError
        return [self._made_by(name).get("physlm"), self._decides(run)]

    def _run(self, name: str) -> run_lib.Run | None:
        """The run; None where it is not there any more, of another version, or lacks a file."""
        if name not in self._runs:
            try:
                self._runs[name] = run_lib.load(directory_of(name, self.store.models))
            except ValueError:
                self._runs[name] = None
        return self._runs[name]

    @functools.cached_property
    def _runs(self) -> dict[str, run_lib.Run | None]:
        """Those that were asked for."""
        return {}

    def _made_by(self, run: str) -> dict[str, Any]:
        """The versions by which a run was trained; empty where they are not known."""
        path = directory_of(run, self.store.models) / versions_lib.FILE
        return files.read_object(path) if path.exists() else {**self._known(run).made_by}

    def spec(self, run: str, evaluation: str) -> Spec | None:
        """The class of problems of a run, where its configuration is still there."""
        data = self.configs.get((run, evaluation), {}).get("data")
        known = {} if data is None else {n: v for n, v in data.items() if n in settings.of(Spec)}
        return Spec(**known) if known else None

    @property
    def shared(self) -> dict[str, Any]:
        """Settings of mistakes that all conditions share and that are not the paper's, by name."""
        defaults = {field.name: field.default for field in dataclasses.fields(Mistakes)}
        values: dict[str, set[str]] = {}
        flat = [flatten(config) for config in self.configs.values()]
        for config in flat:
            if config.get("mistakes.rate"):
                kind = {"mistakes.kind": Mistakes(kind=config["mistakes.kind"]).kind_by_name}
                for name in settings.of(Mistakes):
                    value = {**config, **kind}.get(f"mistakes.{name}", defaults[name])
                    values.setdefault(name, set()).add(json.dumps(value))
        one = {name: json.loads(*found) for name, found in values.items() if len(found) == 1}
        usual = {**defaults, "kind": Mistakes().kind_by_name, "rate": one.get("rate")}
        return {
            short_name(f"mistakes.{name}", {f"mistakes.{name}": None}): value
            for name, value in one.items()
            if value != usual[name]
        }

    @property
    def curves(self) -> dict[str, list[Curve]]:
        """Recent losses against tokens, by the conditions' labels, of each run."""
        return {
            line.label: [
                self.accounts.runs[run].losses
                for run in dict.fromkeys(run for run, _ in line.judged)
            ]
            for line in self.lines
        }

    def _curve(self, run: str) -> Curve:
        path = self.store.of_run(run) / METRICS_FILE
        if not path.exists():
            return []
        found = []
        for line in paths.read_bytes(path).split(b"\n"):
            try:
                noted = lines.value(line)
                found.append((noted["tokens"], noted["recent_loss"]))
            except (ValueError, KeyError, TypeError):
                # A killed run may have left half a line, which it drops when it is resumed.
                continue
        # Counted from the end, so that the last point is always among them.
        return found[:: -max(1, len(found) // _POINTS)][::-1]

    @property
    def trained(self) -> dict[str, list[Trained]]:
        """Size, tokens and final loss of each run, by condition, in the order of `judged`."""
        tokens = {(row["run"], row["evaluation"]): row["tokens"] for row in self.rows}
        return {
            line.label: [
                Trained(
                    self.accounts.runs[run].parameters,
                    tokens[run, evaluation],
                    self._last_loss(run),
                )
                for run, evaluation in line.judged
            ]
            for line in self.lines
        }

    def _parameters(self, run: str) -> int | None:
        known = self._run(run)
        return model.count(known.settings.model) if known else None

    def _last_loss(self, run: str) -> float | None:
        curve = self.accounts.runs[run].losses
        return curve[-1][1] if curve else None

    @property
    def seconds(self) -> dict[str, tuple[float | None, float | None]]:
        """Seconds to train and to judge a run of each condition, means over seeds."""
        found = {}
        for line in self.lines:
            trained: list[float] = []
            judged: list[float] = []
            for run, evaluation in line.judged:
                for path, name, into in (
                    (self.store.of_run(run) / run_lib.FINISHED_FILE, "train_seconds", trained),
                    (self.evaluations[run, evaluation] / RESULT_FILE, "evaluate_seconds", judged),
                ):
                    if path.exists() and name in (said := files.read_object(path)):
                        into.append(said[name])
            found[line.label] = (_mean(trained), _mean(judged))
        return found

    @property
    def size(self) -> str:
        """The number of runs, their tokens and what their mistakes have in common, in words."""
        runs = {row["run"]: row["tokens"] for row in self.rows}
        tokens = sorted(set(runs.values()))
        each = " to ".join(rounded(number) for number in {tokens[0]: 0, tokens[-1]: 0})
        told = f"{len(runs)} run{'s' if len(runs) > 1 else ''} of {each} tokens"
        common = condition.in_common([line.condition for line in self.lines])
        return f"{told}, {common}" if common else told


def _entry(row: results.Row) -> tuple[str, str]:
    return row["run"], row["evaluation"]


def _meant(row: results.Row) -> str:
    return json.dumps(condition.meant(row["condition"]), sort_keys=True)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
