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

    A vote is about answers, each solution's or, weighted, what a detector trusts it; of the
    solutions with the answer that wins, the likeliest (the most trusted) counts. Without an answer
    there is no vote. Of equals the first one counts.

    Args:
      pick: `vote`, `weighted` or `likeliest`.
      answers: of each solution, None where it has none.
      score_S: the log-likelihood of each.
      trust_S: how much each is trusted, not negative; read where votes are weighted.

    Raises:
      ValueError: there is no such way, or trust is missing.
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
