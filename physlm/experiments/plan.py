"""What a study asks for: its runs, how each is judged, and which are trained together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from physlm import population, sharding
from physlm.experiments import config as config_lib
from physlm.experiments import registry
from physlm.experiments import run as run_lib
from physlm.experiments.evaluation import Evaluation
from physlm.experiments.execution import Task
from physlm.experiments.run import Run
from physlm.experiments.store import Store
from physlm.experiments.view import Entry

_SHORT_NAMES = {
    "mistakes.rate": "retry_rate",
    "mistakes.kind": "kind",
    "mistakes.mask": "mask",
}


def plan(study: registry.Study, scale: str, assignments: Sequence[str] = ()) -> list[Entry]:
    """All entries of a study, every one checked; equal ones are merged.

    Args:
        study: which study.
        scale: which of `config.SCALES`.
        assignments: `key=value` texts that hold for every run, over what the study itself varies.

    Raises:
        ValueError: an unknown scale or key, a value of the wrong type, or one that a room refuses.
    """
    shared = registry.configure(study, scale)
    chosen = dict(config_lib.parse_assignment(text) for text in assignments)
    chosen = config_lib.expanded(chosen)
    defaults = config_lib.flatten(shared)
    set_apart = {key for key, value in chosen.items() if value != defaults[key]}
    entries: list[Entry] = []
    runs: dict[str, Run] = {}
    for overrides in study.sweep():
        overrides = config_lib.expanded(overrides)
        run = run_lib.make_run(config_lib.override(shared, {**overrides, **chosen}))
        evaluation = Evaluation(run.settings.evaluate)
        apart = condition(run, evaluation, {*overrides, *set_apart})
        entry = Entry(runs.setdefault(run.name, run), evaluation, apart)
        if entry.shown not in [other.shown for other in entries]:
            entries.append(entry)
    if not entries:
        raise ValueError(f"the study {study.name!r} has no runs: its sweep() yields nothing.")
    return entries


def condition(run: Run, evaluation: Evaluation, varied: Iterable[str]) -> dict[str, Any]:
    """What sets a run, and how it is judged, apart from the others of its study.

    Args:
        run: which run.
        evaluation: how it is judged.
        varied: dotted keys in which they may differ. Those count that can change a result, but for
            the seed; the rate of mistakes always does.
    """
    flat = config_lib.flatten(run.config)
    # What an error-free run does not read may be what a study varies, and a file is its content.
    told = {key: value for key, value in flat.items() if config_lib.decides(key)} | dict(run.facts)
    told |= config_lib.flatten({"evaluate": evaluation.facts})
    apart = {key for key in varied if key in told} - {"mistakes.rate", "seed"}
    return {short_name(key, flat): told[key] for key in ["mistakes.rate", *sorted(apart)]}


def short_name(key: str, flat: Mapping[str, Any]) -> str:
    """How a condition calls the setting `key`: its last part, where no other section has it."""
    if key in _SHORT_NAMES:
        return _SHORT_NAMES[key]
    last = key.rpartition(".")[2]
    taken = [*_SHORT_NAMES.values(), *(other.rpartition(".")[2] for other in flat if other != key)]
    return key.replace(".", "_") if last in taken else last


def tasks(entries: Sequence[Entry]) -> list[Task]:
    """What there is to do: each run once, with all the ways in which it is judged."""
    found: dict[str, Task] = {}
    for entry in entries:
        before = found.get(entry.run.name, Task(entry.run, ())).evaluations
        known = entry.evaluation.config in [other.config for other in before]
        more = () if known else (entry.evaluation,)
        found[entry.run.name] = Task(entry.run, (*before, *more))
    return list(found.values())


def groups(todo: Sequence[Task], store: Store) -> list[list[Task]]:
    """Tasks whose runs are trained as one program, in the order of their first ones.

    They are of one shape and can go on from one step, at most `mesh.population`, and a multiple of
    the devices: a program of fewer would leave some idle, where a run alone is divided over them.
    """
    alike: list[tuple[str, set[int], list[Task]]] = []
    for task in todo:
        run, directory = task.run, store.of_run(task.run.name)
        # How many steps a budget of problems takes differs from run to run.
        alone = run_lib.takes_longer(run.settings) or _spread(run.settings.mesh)
        alone = alone or run_lib.status(directory) == "finished"
        shape, saved = run.name if alone else run_lib.shape(run), run_lib.saved_steps(directory)
        for other, steps, members in alike:
            if other == shape and (steps & saved or not (steps or saved)):
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
            settings.model, tokens, jax.default_backend()
        )
        while members:
            size = min(most, len(members)) // count * count
            found.append(members[: max(size, 1)])
            members = members[max(size, 1) :]
    place = {task.run.name: number for number, task in enumerate(todo)}
    return sorted(found, key=lambda group: place[group[0].run.name])


def _spread(mesh: sharding.MeshConfig) -> bool:
    """Whether a run needs several devices or hosts to itself."""
    return mesh.beside_data > 1 or jax.process_count() > 1
