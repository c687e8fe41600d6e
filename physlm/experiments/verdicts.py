"""Puts comparisons of conditions into a table, sentences, and notes on how to read both."""

from collections.abc import Sequence

from physlm.experiments import inference
from physlm.experiments.comparison import Comparison
from physlm.experiments.inference import Difference
from physlm.experiments.summary import shown_cell

# A difference is called one where p is below this.
_CHANCE = 0.05
# Up to so many sentences are all shown at once.
_FEW = 4
_ONE_SEED = (
    "One seed each: what is ahead or behind here is so on other problems, too, but only for these "
    "very models; models of other seeds may differ."
)


def table(compared: Sequence[Comparison]) -> list[list[str]] | None:
    """Cells by conditions: difference in points, its 95% interval and p; None where there is none.

    Where several conditions are compared, p after Holm's correction stands behind it. What each is
    compared with is a row of its own where the table's heading alone could be misunderstood.

    Args:
        compared: what `comparison.compare` found, of one kind.
    """
    shown = [one for one in compared if one.cells]
    names = list(dict.fromkeys(name for one in shown for name in one.cells))
    many = len(shown) > 1
    rows = [[shown_cell(name), *(_text(one, name, many=many) for one in shown)] for name in names]
    heads = [["op", *(one.label for one in shown)]]
    if any(one.base for one in shown):
        heads.append(["against", *(one.base or one.against for one in shown)])
    return heads + rows if rows else None


def sentences(compared: Sequence[Comparison]) -> tuple[list[str], list[str]]:
    """Each comparison in a sentence: ahead, behind or not told apart, up to the cap and beyond it.

    Args:
        compared: what `comparison.compare` found.

    Returns:
        The sentences to read first: with one seed, what that means; then those on several rates
        together, and those on conditions that are ahead or behind. And the others, on what is not
        told apart; none where there are few sentences in all.
    """
    told = [(one, text) for one in compared if (text := _sentence(one))]
    of_seeds = any(each.over_seeds for one, _ in told for each in _in_words(one).values())
    caution = [] if of_seeds or not told else [_ONE_SEED]
    if len(told) <= _FEW:
        return caution + [text for _, text in told], []
    together = [text for one, text in told if one.rates > 1]
    alone = [(text, _is_told_apart(one)) for one, text in told if one.rates == 1]
    first = together + [text for text, is_apart in alone if is_apart]
    return caution + first, [text for text, is_apart in alone if not is_apart]


def _is_told_apart(one: Comparison) -> bool:
    return any(one.adjusted[name] < _CHANCE for name in _in_words(one))


def _in_words(one: Comparison) -> dict[str, Difference]:
    """The differences that sentences tell: on all up to the cap, and on all beyond it."""
    return {
        name: each
        for name, each in one.cells.items()
        if each is not None and name.startswith(("<=", "beyond"))
    }


def _sentence(one: Comparison) -> str:
    parts = []
    for name, each in _in_words(one).items():
        p = one.adjusted[name]
        points, ends = f"{100 * abs(each.value):.1f} points", _ends(each)
        if p >= _CHANCE:
            text = f"not told apart ({100 * each.value:+.1f} {ends}"
        else:
            side = "ahead" if each.value > 0 else "behind"
            text = f"{side} by {points} ({ends}, {inference.in_words(p)}"
        if seeds := one.by_seed.get(name):
            text += f"; by seed {', '.join(f'{100 * value:+.1f}' for value in seeds)}"
        parts.append(f"{name.replace('<=', 'up to ')} operations {text})")
    of_seeds = f", {one.seeds}" if one.seeds else ""
    against = one.base or one.against
    return f"{one.label}, against {against}{of_seeds}: {'; '.join(parts)}." if parts else ""


def notes(compared: Sequence[Comparison]) -> list[str]:
    """Notes on how to read the tables, and on what could not be compared."""
    found = [one for each in compared for one in each.cells.values()]
    tested = [one for one in found if one is not None]
    told = []
    if tested:
        kinds = {one.over_seeds for one in tested}
        how = {
            True: "t tests over seeds and problems, paired by problem, with the variance over "
            "seeds pooled over the study's conditions",
            False: "McNemar's exact tests over problems of two models, of one seed each, which say "
            "nothing of other seeds",
        }
        shown = [one.against for one in compared if one.cells]
        together = ""
        if len(set(shown)) < len(shown):
            together = "; with Holm's correction a whole row of a table has it together"
        told.append(
            "Differences are in points of strict accuracy: "
            f"{'; or '.join(how[kind] for kind in sorted(kinds, reverse=True))}. "
            f"Where there is no difference, each of the {len(tested)} comparisons has a chance of "
            f"one in twenty of p < 0.05{together}."
        )
    if any(one.rates > 1 for one in compared):
        told.append(
            "Rates together are their mean, each with equal weight. Their runs are taken to be "
            "independent, although those of one seed begin with equal parameters and read equal "
            "problems: whatever these do alike at all rates makes such intervals too short, and "
            "shows in differences by seed that are far apart."
        )
    if None in found:
        told.append("Conditions whose runs were judged on different problems are not compared.")
    told += [f"Not compared: {one.label} ({one.why_not})." for one in compared if one.why_not]
    return told


def _text(one: Comparison, name: str, *, many: bool) -> str:
    if (each := one.cells.get(name)) is None:
        return "–"
    text = f"{100 * each.value:+.1f} {_ends(each)}, {inference.in_words(each.p)}"
    return f"{text} (Holm {inference.in_words(one.adjusted[name])})" if many else text


def _ends(each: Difference) -> str:
    return f"[{100 * each.low:+.1f}, {100 * each.high:+.1f}]"
