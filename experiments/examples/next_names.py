"""What would models name next? Along right solutions, how likely each parameter is, by what it is.

    python experiments/examples/next_names.py runs/models/RUN… --op 8 --out names

Problems of templates that training held out, with error-free solutions, are read by each RUN. Where
a step is about to name its parameter, every parameter of the problem has a probability, and is

- right: the question needs it, and all that it needs is computed;
- needless: it could be computed, and the question does not need it;
- early: something that it needs is not computed;

or is computed already, which counts with all other texts. The table says how much each takes, and
at how many steps the likeliest parameter is an early one, as greedy decoding would have it. In the
figure these steps are told apart by how many early ones there are to choose from. Seeds of one
condition are taken together; intervals, 95%, are over seeds and problems.

`--mixed 0.5` adds, for error-free models, what their choice would be if all else that they know
were the same, and they made mistakes as often as data of this rate does: each of K early parameters
is then named with 0.5 / K of the probability, and the rest is theirs.
"""

import argparse
import csv
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

import physlm
from data_gen.solutions.mistakes import ERROR_FREE
from physlm.analysis import Loaded, Texts
from physlm.experiments import inference
from physlm.experiments.figures import style

WHAT = ("right", "needless", "early")
RIGHT, NEEDLESS, EARLY = range(len(WHAT))

# Numbers of parameters that are told apart in the figure, at most.
_GROUPS = 6
_MIXED = "mixed with mistakes at"
# Logits that are held at once.
_AT_ONCE = 1 << 25


class Steps(NamedTuple):
    """Steps of N problems, X at most, of S models: what each would name (leading axis S or none).

    Names: P parameters; C what they are, as in `WHAT`.
    """

    there_NxX: np.ndarray  # bool: the solution has this step
    early_NxX: np.ndarray  # int: parameters that are too early there
    share_SxNxXxC: np.ndarray  # how much of the probability each kind has
    first_SxNxX: np.ndarray  # bool: the likeliest parameter is an early one


def kinds(texts: Texts) -> np.ndarray:
    """What each parameter is before each step, as a number of `WHAT`; -1 for none. [N, X, P]."""
    labels = texts.labels
    there_Nx1xP = np.array([[bool(name) for name in names] for names in texts.names])[:, None]
    kind_NxXxP = np.where(labels.can_next_XxP, NEEDLESS, EARLY)
    kind_NxXxP = np.where(labels.nece_next_XxP, RIGHT, kind_NxXxP)
    return np.where(there_Nx1xP & ~labels.known_XxP, kind_NxXxP, -1)


def chances(run: Loaded, texts: Texts) -> np.ndarray:
    """How likely each parameter is named at each step of the texts; nan past the last. [N, X, P].

    A name of several tokens is as likely as its tokens, one after the other.
    """
    shape = texts.labels.known_XxP.shape
    log_NxXxP = np.full((shape[0], shape[1] - 1, shape[2]), np.nan)
    # Each text that is read, and the names that it tells of: place in the result, and in the text.
    wanted: dict[tuple[int, ...], list[tuple[tuple[int, int, int], int, list[int]]]] = {}
    for n, step, start in _places(texts):
        text = texts.tokens_NxT[n, : texts.length_N[n]].tolist()
        for slot, there in enumerate(texts.names[n]):
            name = _tokens(texts, n, slot) if there else []
            if name:
                # What a text holds after a place changes nothing there.
                row = tuple(text[:start] + name[:-1] if name[1:] else text)
                wanted.setdefault(row, []).append(((n, step, slot), start, name))
    longest = max(map(len, wanted))
    size = max(1, _AT_ONCE // (longest * run.run.settings.model.vocab))
    all_rows = list(wanted.items())
    for first in range(0, len(all_rows), size):
        part = all_rows[first : first + size]
        tokens_RxT = np.zeros((min(size, len(wanted)), longest), np.int32)
        for at, (row, _) in enumerate(part):
            tokens_RxT[at, : len(row)] = row
        logits_RxTxV = run.read(tokens_RxT).logits_NxTxV
        for (_, names), logits_TxV in zip(part, logits_RxTxV, strict=False):
            total_T = np.logaddexp.reduce(logits_TxV, axis=-1)
            for place, start, name in names:
                before = start - 1 + np.arange(len(name))
                log_NxXxP[place] = (logits_TxV[before, name] - total_T[before]).sum()
    return np.exp(log_NxXxP)


def _tokens(texts: Texts, n: int, slot: int) -> list[int]:
    """The tokens of a parameter's name, without the brackets of a question about it."""
    return texts.asked_NxPxA[n, slot, 1 : texts.asked_NxP[n, slot] - 1].tolist()


def _places(texts: Texts) -> Iterator[tuple[int, int, int]]:
    """Each problem, each step of its solution, and the place where that names its parameter."""
    for n, length in enumerate(texts.length_N):
        text = texts.tokens_NxT[n].tolist()
        step_T, slot_T = texts.tokens.step_N[n], texts.tokens.slot_N[n]
        for step in range(step_T[:length].max() + 1):
            at = np.flatnonzero(step_T == step).tolist()
            name = _tokens(texts, n, int(slot_T[at[0]]))
            yield n, step, next(t for t in at if text[t : t + len(name)] == name)


def steps(kind_NxXxP: np.ndarray, chance_SxNxXxP: np.ndarray, mixed: float = 0.0) -> Steps:
    """What models would name, by what it is.

    Args:
      kind_NxXxP: of each parameter, as `kinds` has it.
      chance_SxNxXxP: by each model, as `chances` has it.
      mixed: the rate of mistakes to mix it with, equally likely ones.
    """
    kind_NxXxP = kind_NxXxP[:, : chance_SxNxXxP.shape[2]]
    there_NxX = ~np.isnan(chance_SxNxXxP[0]).all(-1)
    known_SxNxXxP = np.nan_to_num(chance_SxNxXxP)
    early_NxXxP = kind_NxXxP == EARLY
    early_NxX = early_NxXxP.sum(-1)
    each_NxXx1 = (mixed * (early_NxX > 0) / np.maximum(early_NxX, 1))[..., None]
    rest_NxXx1 = 1 - mixed * (early_NxX > 0)[..., None]
    named_SxNxXxP = known_SxNxXxP * rest_NxXx1 + early_NxXxP * each_NxXx1
    share = [
        (named_SxNxXxP * (kind_NxXxP == what)).sum(-1) * there_NxX for what in range(len(WHAT))
    ]
    most_SxNxX = named_SxNxXxP.argmax(-1)
    first_SxNxX = np.take_along_axis(early_NxXxP[None], most_SxNxX[..., None], -1)[..., 0]
    return Steps(there_NxX, early_NxX, np.stack(share, -1), first_SxNxX & there_NxX)


def mean(
    values_SxNxX: np.ndarray, chosen_NxX: np.ndarray, others: Sequence[np.ndarray] = ()
) -> tuple[float, float, float]:
    """The mean over the chosen steps, and its 95% interval over seeds and problems."""
    each = [_of_problems(values, chosen_NxX) for values in (values_SxNxX, *others)]
    return float(each[0].mean()), *inference.of_mean(each[0], each[1:])


def _of_problems(values_SxNxX: np.ndarray, chosen_NxX: np.ndarray) -> np.ndarray:
    """A number for each problem; their mean is that over steps, of which problems have several."""
    sum_SxN, count_N = (values_SxNxX * chosen_NxX).sum(-1), chosen_NxX.sum(-1)
    level = sum_SxN.mean() / count_N.mean()
    return level + (sum_SxN - level * count_N) / count_N.mean()


def groups(early_N: np.ndarray) -> list[tuple[int, int]]:
    """Numbers of early parameters, in groups of about equally many steps: first and last.

    Raises:
      ValueError: there is none anywhere.
    """
    some_N = early_N[early_N > 0]
    if not len(some_N):
        raise ValueError("no step of these problems has a parameter that is too early.")
    ends = np.unique(np.quantile(some_N, np.linspace(0, 1, _GROUPS + 1)[1:], method="lower"))
    starts = [int(some_N.min()), *(int(end) + 1 for end in ends[:-1])]
    return list(zip(starts, map(int, ends), strict=True))


class Row(NamedTuple):
    """A row of the table; shares are in percent."""

    condition: str
    models: int
    early_from: int  # of steps with so many early parameters; 0 for all steps
    early_to: int
    steps: int
    right: float
    needless: float
    early: float
    likeliest_early: float
    low: float  # of its interval
    high: float


def rows(found: Mapping[str, Steps]) -> Iterator[Row]:
    """Each condition's row of all steps, and those of the groups."""
    some = next(iter(found.values()))
    between = groups(some.early_NxX[some.there_NxX])
    for name, each in found.items():
        others = [other.first_SxNxX for other in found.values() if other is not each]
        for low, high in [(0, 0), *between]:
            chosen_NxX = some.there_NxX
            if high:
                chosen_NxX = chosen_NxX & (some.early_NxX >= low) & (some.early_NxX <= high)
            shares = [
                mean(share, chosen_NxX)[0] for share in np.moveaxis(each.share_SxNxXxC, -1, 0)
            ]
            said = [*shares, *np.clip(mean(each.first_SxNxX, chosen_NxX, others), 0, 1)]
            counts = (len(each.first_SxNxX), low, high, int(chosen_NxX.sum()))
            yield Row(name, *counts, *(round(100 * float(share), 1) for share in said))


def draw(table: Sequence[Row], about: str, path: pathlib.Path) -> None:
    """The share of steps whose likeliest parameter is early, by how many there are."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.condition for row in table))
    common = set.intersection(*(set(name.split(",")) for name in names)) if names[1:] else set()
    figure = Figure(figsize=(9.0, 5.6))
    axes = figure.subplots()
    for number, name in enumerate(names):
        some = [row for row in table if row.condition == name and row.early_to]
        middle_G = np.array([row.likeliest_early for row in some])
        ends_2xG = np.array([[row.low for row in some], [row.high for row in some]])
        axes.errorbar(
            np.arange(len(some)) + 0.06 * (number - (len(names) - 1) / 2),
            middle_G,
            np.abs(ends_2xG - middle_G),
            capsize=3,
            label=", ".join(part.strip() for part in name.split(",") if part not in common)
            + f" ({some[0].models})",
            **style.style(number, int(_MIXED in name)),
        )
    labels = [f"{a}" if a == b else f"{a} to {b}" for a, b in ((r[2], r[3]) for r in some)]
    axes.set_xticks(range(len(some)), labels)
    axes.set_xlabel("parameters that cannot be computed yet")
    axes.set_ylabel("steps at which one of them is the likeliest, %")
    axes.set_ylim(bottom=0)
    style.plain(axes)
    axes.legend(title="data (models)", **style.LEGEND)
    figure.subplots_adjust(top=0.86, bottom=0.12, left=0.09, right=0.98)
    style.title(figure, "What models would name next", about)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it (`names.csv`) and the figure (`names.png`)."""
    summary, _, about = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directories of runs of one class")
    parser.add_argument("--op", type=int, help="operations (default: the most of training)")
    parser.add_argument("--problems", type=int, default=256, help="how many (default: 256)")
    parser.add_argument("--mixed", type=float, default=0.0, metavar="RATE", help="see below")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/names"), metavar="DIR"
    )
    args = parser.parse_args(arguments)
    if not 0 <= args.mixed < 1:
        parser.error(f"--mixed is {args.mixed:g}; it must be at least 0 and below 1.")
    try:
        found, op = _found(args.runs, args.op, args.problems, args.mixed)
        table = list(rows(found))
    except ValueError as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "names.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([Row._fields, *table])
    for row in table:
        if not row.early_to:
            of_each = zip(WHAT, row[5:8], strict=True)
            shares = ", ".join(f"{kind} {share}%" for kind, share in of_each)
            share = f"{row.likeliest_early}% [{row.low}, {row.high}] of {row.steps} steps"
            print(f"{row.condition} ({row.models}): {shares}; at {share} the likeliest is early")
    about = f"Right solutions of {args.problems} held-out problems of {op} operations"
    draw(table, about, args.out / "names.png")


def _found(
    directories: Sequence[str], op: int | None, count: int, mixed: float
) -> tuple[dict[str, Steps], int]:
    """The steps of each condition, and the number of operations."""
    first = physlm.load(directories[0])
    op = op or first.run.settings.data.max_op
    texts = first.texts(count, op=op, mistakes=ERROR_FREE)
    kind_NxXxP = kinds(texts)
    read: dict[str, list[np.ndarray]] = {}
    for directory in directories:
        run = physlm.load(directory)
        if run.spec != first.spec:
            raise ValueError(
                f"{run.run.name} has problems of another class than {first.run.name}; "
                "all runs must have the same."
            )
        mistakes = run.run.settings.mistakes
        masked = f", mask {mistakes.mask}" if mistakes.rate and mistakes.mask != "none" else ""
        name = run.run.name.partition(",seed=")[0] + masked
        read.setdefault(name, []).append(chances(run, texts))
        print(f"{run.run.name}: read")
        if mixed and not mistakes.rate:
            read.setdefault(f"{name}, {_MIXED} {mixed:g}", []).append(read[name][-1])
    found = {
        name: steps(kind_NxXxP, np.stack(each), mixed if _MIXED in name else 0.0)
        for name, each in read.items()
    }
    return found, op


if __name__ == "__main__":
    main()
