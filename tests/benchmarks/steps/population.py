"""Several small runs as one program, beside the same runs one after the other."""

from collections.abc import Iterator

from benchmarks import population
from benchmarks.steps.figure import Figure, Setting

from physlm.architecture import ModelConfig

RUNS = 8


def figures(setting: Setting) -> Iterator[Figure]:
    """Tokens a second of all runs together."""
    if setting.tiny:
        config = ModelConfig(vocab=40, window=16, layers=1, heads=1, head_dim=8)
        batch, rounds, seconds = setting.devices, 1, 0.1
    else:
        config = ModelConfig(
            vocab=512, window=256, layers=4, heads=4, head_dim=32, dtype="bfloat16"
        )
        batch, rounds, seconds = 16, 5, 2.0
        # Each run alone is divided over all devices.
        batch *= setting.devices
    found = population.measure(config, RUNS, batch, "adamw", rounds, seconds)
    size = f"{config.layers} layers, width {config.width}, {batch} x {config.window}"
    for name, speed in found.items():
        note = f"{speed / found[population.ALONE]:.2f} x"
        yield Figure(f"{RUNS} runs, {name}, {size}", speed, "tokens/s", note)
