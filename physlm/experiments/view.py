"""A study's view of a store: which runs it shows, by which evaluations, as which conditions.

The study's directory has two files on that. `shown.json` has the entries; each command of the same
study and scale adds its own to those of earlier ones, and to delete the file is to begin anew, with
the models kept. `commands.txt` has the commands.
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from etils import epath

from data_gen.text import lines
from physlm import paths
from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import files, leases, results
from physlm.experiments.evaluation import Evaluation
from physlm.experiments.run import CONFIG_FILE, Run
from physlm.experiments.store import Store

FILE = "shown.json"

# The runs that are needed for what is shown, parents and probes among them.
RUNS_FILE = "runs.json"

# The commands that asked for what is shown, a line each.
COMMANDS_FILE = "commands.txt"


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry of a study: a run, and one evaluation of it.

    Attributes:
        run: what is trained.
        evaluation: how its model is judged, after the last step.
        condition: what sets the entry apart from the others of the study, the seed excluded.
        needs: runs that judging asks.
    """

    run: Run
    evaluation: Evaluation
    condition: Mapping[str, Any]
    needs: tuple[Run, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """All runs that the entry needs, each after its parent."""
        found: list[Run] = []
        for run in (*self.needs, self.run):
            line = [run]
            while (parent := line[0].parent) is not None:
                line.insert(0, parent)
            found += [one for one in line if one.name not in [other.name for other in found]]
        return found

    @property
    def shown(self) -> dict[str, Any]:
        """The entry as `shown.json` has it."""
        return {
            "run": self.run.name,
            "condition": dict(self.condition),
            "evaluation": self.evaluation.config,
        }


@dataclasses.dataclass(frozen=True)
class View:
    """A study at one scale, in a store.

    Attributes:
        store: where the runs are.
        study: name of the study.
        scale: at which it is done.
    """

    store: Store
    study: str
    scale: str

    @property
    def directory(self) -> epath.Path:
        """The directory of results, tables, figures and page."""
        return self.store.root / f"{self.study}-{self.scale}"

    def check(self) -> str:
        """Checks, without writing anything, that entries can be added.

        Returns:
            what is wrong with `results.jsonl`, which `refresh` makes again; empty where nothing is.

        Raises:
            ValueError: the store is none, or cannot be written; or the directory holds results of
                another study.
        """
        self.store.check(self.directory)
        return results.refuse_other_study(self.directory / results.FILE, self.study)

    def held(self) -> AbstractContextManager[leases.Lease]:
        """A lease of the view's files, held for seconds while they are written."""
        return leases.held(self.directory, lambda: None)

    def remember(self, entries: Sequence[Entry], command: str = "") -> None:
        """Adds entries to the view.

        Args:
            entries: to be shown, beside those that are shown already.
            command: that asks for them; empty where none does.

        Raises:
            ValueError: the file that names them is damaged.
        """
        # Under the lease, so that what another worker adds at the same time is not lost.
        with self.held():
            before = self.remembered()
            commands = self.commands() if before else []
            if command and command not in commands:
                text = "".join(f"{one}\n" for one in [*commands, command])
                paths.write_atomically(self.directory / COMMANDS_FILE, text)
            new = [entry.shown for entry in entries if entry.shown not in before]
            runs = {run.name: run.settings.train.steps for one in entries for run in one.runs}
            needed = self.needed()
            if needed != needed | runs:
                files.write_json(self.directory / RUNS_FILE, needed | runs)
            if new:
                files.write_json(self.directory / FILE, [*before, *new])

    def commands(self) -> list[str]:
        """The commands that made what is shown, as far as they are known, the first one first."""
        path = self.directory / COMMANDS_FILE
        return paths.read_bytes(path).decode(errors="replace").splitlines() if path.exists() else []

    def remembered(self) -> list[dict[str, Any]]:
        """The entries of the view, as `shown.json` has them.

        Raises:
            ValueError: the file that names them is damaged.
        """
        path = self.directory / FILE
        if not path.exists():
            return []
        found, fields = files.read_json(path), {"run", "condition", "evaluation"}
        if not isinstance(found, list) or not all(
            isinstance(entry, dict) and set(entry) == fields for entry in found
        ):
            raise ValueError(f"{path} does not say what is shown; remove it to begin anew.")
        return found

    def recall(self) -> None:
        """Restores a lost `shown.json` from the entries in `results.jsonl`."""
        path, found = self.directory / results.FILE, {}
        for line in paths.read_bytes(path).splitlines() if path.exists() else ():
            # A line that was broken off is made again from the entries.
            with contextlib.suppress(ValueError, KeyError):
                row = results.validate(lines.value(line), str(path))
                of_run = self.store.of_run(row["run"]) / evaluation_lib.EVALUATIONS_DIR
                config = files.read_object(of_run / row["evaluation"] / CONFIG_FILE)
                del config["step"]
                entry = {"run": row["run"], "condition": row["condition"], "evaluation": config}
                found[row["run"], row["evaluation"]] = entry
        with self.held():
            if not (self.directory / FILE).exists():
                files.write_json(self.directory / FILE, list(found.values()))

    def needed(self) -> dict[str, int | None]:
        """All runs that the view needs, parents and probes among them, with their numbers of steps.

        A run with a budget of problems may take more steps. None where an older version began the
        view, and the number is not known.

        Raises:
            ValueError: a file that names them is damaged.
        """
        shown = dict.fromkeys(entry["run"] for entry in self.remembered())
        path = self.directory / RUNS_FILE
        if not shown or not path.exists():
            return shown
        found = files.read_json(path)
        if not isinstance(found, dict) or not all(isinstance(n, int) for n in found.values()):
            raise ValueError(f"{path} does not say which runs there are; remove it.")
        return {name: steps for name, steps in found.items() if steps} | {
            name: None for name in shown if name not in found
        }

    def rows(self) -> list[results.Row]:
        """The rows of every finished entry, in canonical order.

        Raises:
            ValueError: a file that says what is shown, or a result, is damaged.
        """
        found = []
        for shown in self.remembered():
            path = evaluation_lib.result_of(self.store.of_run(shown["run"]), shown["evaluation"])
            if path is not None and path.exists():
                cells = results.cells(path)
                found.append(
                    [results.row(self.study, shown["condition"], cell, str(path)) for cell in cells]
                )
        return results.ordered(found)

    def refresh(self) -> None:
        """Writes `results.jsonl` anew."""
        # Under the lease, so that the last one to write has read all that others had.
        with self.held():
            results.write(self.directory / results.FILE, self.rows())
