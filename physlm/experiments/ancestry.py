"""Parents: the run whose model another run starts from, its directory, and whether they fit."""

from etils import epath

from physlm import paths
from physlm.adaptation import FULL, PROBE
from physlm.experiments import files
from physlm.experiments import run as run_lib
from physlm.experiments.run import Run
from physlm.start import CARRIED

# What a child may change of its parent's model: it has no part in what the weights are.
_FREE = ("model.dropout", "model.init_std", "model.canon_init")


def directory_of(name: str, models: epath.Path) -> epath.Path:
    """The directory of a parent, which is given by its name in the store or by a path."""
    return models / name if "/" not in name else paths.path(name)


def _load(run: Run, models: epath.Path) -> tuple[Run, epath.Path]:
    """The parent of a run, and its directory.

    Raises:
        ValueError: there is no such run, or it does not fit.
    """
    name = run.settings.parent.run
    directory = directory_of(name, models)
    if not paths.found(directory / run_lib.CONFIG_FILE):
        raise ValueError(
            f"parent.run is {name!r}; it must be the name of a run in {models}, or the directory "
            "of a run."
        )
    if "model_type" in files.read_object(directory / run_lib.CONFIG_FILE):
        raise ValueError(
            f"parent.run is {name!r}, a model of Hugging Face; model.from={name} begins with it."
        )
    parent = run_lib.load(directory)
    check(run, parent)
    if run.settings.parent.optimizer == CARRIED and run_lib.last_step(directory) == 0:
        raise ValueError(
            f"parent.optimizer is 'carried'; it must be 'fresh', since {parent.name!r} was not "
            "trained here."
        )
    return parent, directory


def check(child: Run, parent: Run) -> None:
    """Raises ValueError where a run cannot start from its parent's model.

    Raises:
        ValueError: names what differs.
    """
    if parent.settings.adaptation.kind == PROBE:
        raise ValueError(f"parent.run is {parent.name!r}, a probe; it must be a run with a model.")
    keys = [key for key in {*child.facts, *parent.facts} if key.startswith(("data.", "model."))]
    apart = [
        f"{key} (there {there!r}, here {here!r})"
        for key in sorted(set(keys) - set(_FREE))
        if (there := parent.facts.get(key)) != (here := child.facts.get(key))
    ]
    if apart:
        raise ValueError(
            f"parent.run is {parent.name!r}, of another model or class of problems: it differs in "
            f"{', '.join(apart)}."
        )
    carried = child.settings.parent.optimizer == CARRIED
    names = [run.settings.optimizer.name for run in (child, parent)]
    if carried and (len({*names}) > 1 or parent.settings.adaptation.kind != FULL):
        raise ValueError(
            f"parent.optimizer is 'carried'; it must be 'fresh', since {parent.name!r} was trained "
            f"by {names[1]} with adaptation.kind={parent.settings.adaptation.kind}."
        )


def lineage(run: Run, models: epath.Path) -> list[tuple[Run, epath.Path]]:
    """All ancestors of a run, nearest first, with their directories.

    Raises:
        ValueError: one is missing or not trained, does not fit, or descends from itself.
    """
    found: list[tuple[Run, epath.Path]] = []
    seen = {run.name}
    while run.settings.parent.run:
        run, directory = _load(run, models)
        if run.name in seen:
            raise ValueError(f"parent.run: {run.name!r} descends from itself.")
        seen.add(run.name)
        found.append((run, directory))
        if run_lib.status(directory) != "finished":
            raise ValueError(f"parent.run is {run.name!r}, which is not trained to its end yet.")
    return found
