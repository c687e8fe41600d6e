"""Plans a study: its runs, their evaluations, and which runs are trained as one program."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from data_gen.device import of_data
from physlm import population, sharding
from physlm.experiments import ancestry, registry
from physlm.experiments import config as config_lib
from physlm.experiments import run as run_lib
from physlm.experiments.condition import PARENT, PROBE, TRAINED, short_name
from physlm.experiments.conditions import ByWidth, Planned, Times
from physlm.experiments.evaluation import Evaluation
from physlm.experiments.execution import Task
from physlm.experiments.run import Run
from physlm.experiments.store import Store
from physlm.experiments.view import Entry

# The setting that names the run of a probe, which a study gives as a condition.
_PROBE = "evaluate.probe"


def plan(
    study: registry.Study,
    scale: str,
    assignments: Sequence[str] = (),
    begun: Mapping[str, Any] | None = None,
) -> list[Entry]:
    """All entries of a study, each checked, without duplicates.

    Args:
        study: which study.
        scale: which of `scales.NAMES`.
        assignments: `key=value` texts that hold for every run, over what the study itself varies.
        begun: settings of the model that all runs begin with, by dotted key.

    Raises:
        ValueError: an unknown scale or key, or a value that is of the wrong type or not allowed.
    """
    shared = config_lib.override(registry.configure(study, scale), begun or {})
    chosen = config_lib.expanded(config_lib.parse_assignments(assignments))
    defaults = config_lib.flatten(shared)
    set_apart = {key for key, value in chosen.items() if value != defaults[key]}
    entries: list[Entry] = []
    runs: dict[str, Run] = {}
    for asked in study.runs(config_lib.override(shared, chosen)):
        planned = asked if isinstance(asked, Planned) else Planned("", {}, asked)
        try:
            run = _run(planned, shared, chosen)
        except ValueError as error:
            # With `--set` it may be that which does not fit.
            if {*chosen} - {"seed"} or not registry.is_own(study.name):
                raise
            raise ValueError(f"the study {study.name!r}: {error}") from error
        evaluation = Evaluation(run.settings.evaluate)
        apart = condition(run, evaluation, {*config_lib.expanded(planned.changes), *set_apart})
        if planned.title:
            apart[TRAINED] = planned.title
        if run.parent:
            apart[PARENT] = _data_of(run.parent)
        needs: tuple[Run, ...] = ()
        if isinstance(probe := asked_of(planned).get(_PROBE), Planned):
            needs = (_run(probe, shared, chosen),)
            apart[PROBE] = probe.title
        entry = Entry(runs.setdefault(run.name, run), evaluation, apart, needs)
        if entry.shown not in [other.shown for other in entries]:
            entries.append(entry)
    if not entries:
        raise ValueError(f"the study {study.name!r} has no runs: its sweep() yields nothing.")
    return entries


def _data_of(run: Run) -> str:
    """The training data of a run, in words."""
    mistakes = run.settings.mistakes
    masked = "" if mistakes.mask == "none" else ", masked"
    said = f"rate {mistakes.rate:g}{masked}" if mistakes.rate else "error-free"
    return f"{said} and recorded" if run.settings.practice.records else said


def asked_of(planned: Planned) -> dict[str, Any]:
    """All settings that a condition changes, its own differences and the study's, by dotted key."""
    return config_lib.expanded({**planned.differences, **planned.changes})


def _run(planned: Planned, shared: ConfigDict, chosen: Mapping[str, Any]) -> Run:
    """A run and, before it, its parents."""
    parent = _run(planned.parent, shared, chosen) if planned.parent else None
    begun = config_lib.override(shared, chosen)
    values = config_lib.flatten(begun)
    asked = asked_of(planned)

    def value_of(key: str, value: Any) -> Any:
        if isinstance(value, Planned):
            return _run(value, shared, chosen).name
        if isinstance(value, ByWidth):
            return value.of(values)
        return value.of(values[key], shared.scale) if isinstance(value, Times) else value

    changes = {key: value_of(key, value) for key, value in asked.items()}
    # A value that is set for all runs is what a condition takes its multiple of.
    scaled = {key for key, value in asked.items() if isinstance(value, Times)}
    changes |= {key: value for key, value in chosen.items() if key not in scaled}
    if parent:
        changes["parent.run"] = parent.name
    run = run_lib.make_run(config_lib.override(shared, changes), parent)
    if parent:
        ancestry.check(run, parent)
    return run


def condition(run: Run, evaluation: Evaluation, varied: Iterable[str]) -> dict[str, Any]:
    """The condition of an entry: the settings in which it differs from others of its study.

    Args:
        run: which run.
        evaluation: how it is judged.
        varied: dotted keys of settings that differ within the study. Of these the condition has
            the ones that can change a result, without the seed; the rate of mistakes it always has.
    """
    flat = config_lib.flatten(run.config)
    # The facts of an error-free run lack settings that it does not read and the study may vary; and
    # they have the hash of a file in place of its path.
    told = {key: value for key, value in flat.items() if config_lib.decides(key)} | dict(run.facts)
    told |= config_lib.flatten({"evaluate": evaluation.facts})
    apart = {key for key in varied if key in told} - {"mistakes.rate", "seed", "parent.run", _PROBE}
    return {short_name(key, flat): told[key] for key in ["mistakes.rate", *sorted(apart)]}


def tasks(entries: Sequence[Entry]) -> list[Task]:
    """The tasks of a study: each run, after its parents, with all its evaluations.

    Parents that no entry shows are trained and not judged. Where judging a run needs other runs,
    such as a probe of it, a second task after those does the judging.
    """
    found: dict[tuple[str, bool], Task] = {}

    def add(task: Task) -> None:
        for parent in reversed(_parents(task.run)):
            found.setdefault((parent.name, False), Task(parent, ()))
        key = (task.run.name, bool(task.needs))
        before = found.get(key, Task(task.run, ()))
        known = [other.config for other in before.evaluations]
        more = [one for one in task.evaluations if one.config not in known]
        needs = {run.name: run for run in (*before.needs, *task.needs)}
        found[key] = Task(task.run, (*before.evaluations, *more), tuple(needs.values()))

    for entry in entries:
        for run in (entry.run, *entry.needs) if entry.needs else ():
            # A probe that judging asks is trained first, and the judged model may be its parent.
            add(Task(run, ()))
        add(Task(entry.run, (entry.evaluation,), entry.needs))
    return list(found.values())


def _parents(run: Run) -> list[Run]:
    return [run.parent, *_parents(run.parent)] if run.parent else []


def check_mesh(runs: Sequence[Run]) -> None:
    """Raises where some run cannot be trained on the devices here.

    Raises:
        ValueError: there are too few devices, a model or batch cannot be divided over them, or
            data is to be made on cores that JAX leaves alone.
    """
    if len({run.settings.mesh.cpu_devices for run in runs}) > 1:
        raise ValueError("mesh.cpu_devices differs between runs; one sweep has one value of it.")
    for run in runs:
        of_data(run.settings.mesh.input)
        mesh, train = sharding.make_mesh(run.settings.mesh), run.settings.train
        sharding.check(run.settings.model, train.batch, train.accumulate, mesh)


def shared_batch(runs: Sequence[Run]) -> int:
    """The largest number of sequences by which the batches of all runs can be divided."""
    trains = (run.settings.train for run in runs)
    return math.gcd(*(train.batch // train.accumulate for train in trains))


def groups(todo: Sequence[Task], store: Store) -> list[list[Task]]:
    """Tasks grouped by what is trained as one program, parents before children.

    Groups are in the order of their first tasks. The runs of a program are of one shape and can go
    on from the same step. They are at most `mesh.population`, and a multiple of the number of
    devices: with fewer runs some devices would be idle, while a run alone is divided over all.
    """
    alike: list[tuple[str, set[int], list[Task]]] = []
    for task in todo:
        run, directory = task.run, store.of_run(task.run.name)
        # How many steps a budget of problems takes differs from run to run.
        alone = run_lib.takes_longer(run.settings) or _spread(run.settings.mesh)
        alone = alone or run_lib.status(directory) == "finished"
        saved = run_lib.saved_steps(directory)
        # A sweep that is killed while a program's first checkpoints are written leaves runs with
        # one and runs without. All begin again together: apart they would be other programs,
        # which round otherwise.
        if max(saved, default=0) <= run.settings.train.save_every:
            saved = saved | {0}
        # Parents are trained before their children, so that all of a program have equally many.
        shape = f"{task.depth} {run.name if alone else run_lib.shape(run)}"
        for other, steps, members in alike:
            if other == shape and steps & saved:
                steps &= saved
                members.append(task)
                break
        else:
            alike.append((shape, saved, [task]))
    found = []
    for _, _, members in alike:
        settings = members[0].run.settings
        count = sharding.make_mesh(settings.mesh).size
        tokens = settings.train.batch * settings.windows.window
        most = settings.mesh.population or population.usual(
            settings.model, tokens, jax.default_backend(), count
        )
        while members:
            size = min(most, len(members)) // count * count
            found.append(members[: max(size, 1)])
            members = members[max(size, 1) :]
    return sorted(found, key=lambda group: (group[0].depth, todo.index(group[0])))


def _spread(mesh: sharding.MeshConfig) -> bool:
    """Whether a run needs several devices or hosts to itself."""
    return mesh.beside_data > 1 or jax.process_count() > 1
