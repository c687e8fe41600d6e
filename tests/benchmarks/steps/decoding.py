"""Decoded tokens a second, beside Hugging Face's `generate` of the same weights."""

from collections.abc import Iterator

from benchmarks import throughput
from benchmarks.steps.figure import Figure, Setting
from benchmarks.steps.training import flags

from data_gen.spec import Spec
from data_gen.windows.tokenizer import tokenizer


def figures(setting: Setting) -> Iterator[Figure]:
    """Ours and Hugging Face's, in alternating rounds, and whether they say the same."""
    if setting.tiny:
        vocab, prompts, length, new, rounds, seconds = 40, 4, 8, 8, 1, 1
    else:
        vocab, prompts, length, new, rounds, seconds = tokenizer(Spec()).size, 256, 256, 256, 3, 2
        prompts = setting.rows(prompts) * (setting.devices if setting.platform == "tpu" else 1)
    arguments = flags(
        setting,
        only="decode",
        vocab=vocab,
        prompts=prompts,
        prompt_tokens=length,
        new_tokens=new,
        rounds=rounds,
        seconds=seconds,
    )
    found = throughput.compare(arguments)
    ours, theirs = found["decode:ours:1"], found["decode:hf"]
    what = f"{prompts} prompts of {length} tokens, {new} new ones"
    if ours.error:
        yield Figure(f"ours, {what}", None, wrong=f"ours did not start: {ours.error}")
        return
    yield Figure(f"ours, {what}", ours.speed, "tokens/s")
    if theirs.error:
        yield Figure(f"Hugging Face, {what}", None, note=f"did not start: {theirs.error}")
        return
    times = throughput.ratio(ours, theirs)
    yield Figure(f"Hugging Face, {what}", theirs.speed, "tokens/s", f"ours {times:.2f} x")
    both = [zip(a, b, strict=True) for a, b in zip(ours.said, theirs.said, strict=True)]
    alike = [a == b for row in both for a, b in row]
    # In bfloat16 close calls fall anyhow, and what follows them is another text.
    note = "of the first rows"
    yield Figure("the same tokens", 100 * sum(alike) / len(alike), "%", note)
