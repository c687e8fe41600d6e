"""Training tokens a second and model FLOPs utilization, beside nanoGPT's model under PyTorch."""

from collections.abc import Iterator

from benchmarks import throughput
from benchmarks.steps.figure import Figure, Setting

from data_gen.spec import Spec
from data_gen.windows.tokenizer import tokenizer

# The paper's model and window; a device's share of its batch of 512 where there are eight. GPT-2's
# vocabulary is rounded up as nanoGPT does, and its logits leave room for fewer rows.
WINDOW, ROWS = 768, 64
VOCABULARIES = {"GPT-2's tokens": (50_304, ROWS // 4), "words": (None, ROWS)}


def flags(setting: Setting, **of_step: object) -> list[str]:
    """The flags of `throughput.py` for the paper's model, and those that a step adds."""
    shape = {"layers": 12, "heads": 12, "head_dim": 64, "dtype": "bfloat16"}
    if setting.tiny:
        shape = {"layers": 1, "heads": 2, "head_dim": 8, "dtype": "float32"}
    named = {**shape, "platform": setting.platform, "devices": 1, **of_step}
    return [f"--{name.replace('_', '-')}={value}" for name, value in named.items()]


def figures(setting: Setting) -> Iterator[Figure]:
    """Ours, and PyTorch's compiled with flash attention, in alternating rounds."""
    for name, (vocab, rows) in VOCABULARIES.items():
        if setting.tiny:
            batch, window, vocab = 2, 32, 40
            only, rounds, seconds = "train:ours,train:torch$", 1, 1
        else:
            count = setting.devices if setting.platform == "tpu" else 1
            batch, window = setting.rows(rows) * count, WINDOW
            vocab = vocab or tokenizer(Spec()).size
            only, rounds, seconds = "train:ours,train:torch-compile", 3, 3
        arguments = flags(
            setting,
            only=only,
            batch=batch,
            window=window,
            vocab=vocab,
            rounds=rounds,
            seconds=seconds,
        )
        args, found = throughput.flags().parse_args(arguments), throughput.compare(arguments)
        ours = found["train:ours:1"]
        for full, contender in found.items():
            who = full.split(":")[1]
            what = f"{who}, {vocab:,} {name}, {batch} x {window}"
            if contender.error:
                wrong = contender.error if who == "ours" else ""
                yield Figure(what, None, note=f"did not start: {contender.error}", wrong=wrong)
                continue
            share = throughput.utilization(args, contender)
            notes = [] if share is None else [f"MFU {share:.1%}"]
            times = throughput.ratio(ours, contender)
            if who != "ours" and times is not None:
                notes.append(f"ours {times:.2f} x")
            yield Figure(what, contender.speed, "tokens/s", ", ".join(notes))
        if setting.tiny:
            return
