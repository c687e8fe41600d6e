"""Selection of one of several solutions of a problem: by vote, or by likelihood."""

import collections
from collections.abc import Sequence

import numpy as np


def chosen(
    pick: str,
    answers: Sequence[str | None],
    score_S: np.ndarray,
    trust_S: np.ndarray | None = None,
) -> int:
    """The index of the selected solution.

    In a vote each solution counts for its answer, with the weight 1 (`vote`) or with the trust that
    a detector puts in it (`weighted`); one without an answer has no vote. Of the solutions with the
    winning answer the likeliest is selected, or the most trusted. Of equals the first is selected.

    Args:
      pick: `vote`, `weighted` or `likeliest`.
      answers: of each solution, None where it has none.
      score_S: the log-likelihood of each.
      trust_S: how much each is trusted, not negative; read for `weighted`.

    Raises:
      ValueError: `pick` is none of these, or trust is missing.
    """
    if pick == "likeliest":
        return int(np.argmax(score_S))
    if pick not in ("vote", "weighted") or (pick == "weighted" and trust_S is None):
        raise ValueError(f"solutions cannot be chosen by {pick!r} here.")
    votes = np.ones(len(answers)) if trust_S is None or pick == "vote" else trust_S
    rank_S = score_S if pick == "vote" else votes
    total: dict[str, float] = collections.defaultdict(float)
    for answer, vote in zip(answers, votes, strict=True):
        if answer is not None:
            total[answer] += float(vote)
    if not total:
        return int(np.argmax(rank_S))
    winner = max(total, key=lambda answer: total[answer])
    return int(
        np.argmax([r if a == winner else -np.inf for a, r in zip(answers, rank_S, strict=True)])
    )
