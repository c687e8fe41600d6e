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
        vocab, texts, length, new, rounds, seconds = 40, 4, 8, 8, 1, 1
    else:
        vocab, texts, length, new, rounds, seconds = tokenizer(Spec()).size, 512, 256, 256, 3, 2
        texts = setting.rows(texts) * (setting.devices if setting.platform == "tpu" else 1)
    # One way after the other, since each takes a good part of a device's memory; what takes long to
    # compile is left out where figures mean nothing.
    for way, many in throughput.WAYS.items():
        if setting.tiny and many > 1:
            return
        prompts = max(1, texts // many)
        arguments = flags(
            setting,
            only=f"{way}:ours,{way}:hf" + ("$" if setting.tiny or many > 1 else ""),
            vocab=vocab,
            prompts=prompts,
            prompt_tokens=length,
            new_tokens=new,
            rounds=rounds,
            seconds=seconds,
        )
        how = {"decode": "", "beam": f", {many} beams", "sample": f", {many} samples"}[way]
        what = f"{prompts} prompts of {length} tokens, {new} new ones{how}"
        yield from _beside(throughput.compare(arguments), way, what)


def _beside(found: dict[str, throughput.Contender], way: str, what: str) -> Iterator[Figure]:
    ours = found[f"{way}:ours:1"]
    if ours.error:
        yield Figure(f"ours, {what}", None, wrong=f"ours did not start: {ours.error}")
        return
    yield Figure(f"ours, {what}", ours.speed, "tokens/s")
    for name, called in (("hf", "Hugging Face"), ("hf-compile", "Hugging Face, compiled")):
        theirs = found.get(f"{way}:{name}")
        if theirs is None:
            continue
        if theirs.error:
            yield Figure(f"{called}, {what}", None, note=f"did not start: {theirs.error}")
            continue
        times = throughput.ratio(ours, theirs)
        yield Figure(f"{called}, {what}", theirs.speed, "tokens/s", f"ours {times:.2f} x")
        if way == "sample":
            continue
        both = [zip(a, b, strict=True) for a, b in zip(ours.said, theirs.said, strict=True)]
        alike = [a == b for row in both for a, b in row]
        # In bfloat16 close calls fall anyhow, and what follows them is another text.
        note = "of the first rows"
        yield Figure("the same tokens", 100 * sum(alike) / len(alike), "%", note)
