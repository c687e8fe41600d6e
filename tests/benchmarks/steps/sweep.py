"""The quickstart's study at scale `mini`, in as many pieces as it takes."""

import json
import statistics
from collections.abc import Iterator

from benchmarks.steps.figure import Figure, Setting, UnfinishedError

STUDY = "quickstart"


def figures(setting: Setting) -> Iterator[Figure]:
    """What each run has come to, once all are trained and judged."""
    # What accelerators' images may lack; the other steps do without.
    from physlm.experiments import results, sweep
    from physlm.experiments.store import Store
    from physlm.journal import METRICS_FILE

    scale, store = "smoke" if setting.tiny else "mini", Store(setting.out / "runs")
    code = sweep.main([STUDY, "--scale", scale, "--workdir", str(store.root)])
    if code == 143:
        raise UnfinishedError("there is a checkpoint, from which the same command goes on.")
    wrong = f"the sweep ended with code {code}; what it said stands above." if code else ""
    rows = results.read(store.root / f"{STUDY}-{scale}" / results.FILE)
    runs = list(dict.fromkeys(row["run"] for row in rows))
    for name in runs:
        with (store.of_run(name) / METRICS_FILE).open() as file:
            metrics = [json.loads(line) for line in file]
        speed, used = (
            statistics.median(line[key] for line in metrics) if key in metrics[-1] else None
            for key in ("tokens_per_s", "mfu")
        )
        note = "" if used is None else f"MFU {used:.1%}"
        yield Figure(f"{name}, training", speed, "tokens/s", note)
    for row in rows:
        interval = f"95%: {100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f}"
        what = f"{row['run']}, op {row['cell']}"
        note = f"{interval}; {row['retries']:.2f} retries a problem"
        yield Figure(what, 100 * row["accuracy"], "%", note)
    if wrong or not rows:
        yield Figure("runs", len(runs), wrong=wrong or "there are no results.")
