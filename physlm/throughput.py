"""What a step costs, and how much of the machine it uses."""

import pathlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from physlm.architecture import ModelConfig

# In the first steps of a loop programs are compiled and the first data is made.
_STEPS_BEFORE_TRACE = 5

# Dense bfloat16 operations a second, by a part of what JAX calls a device (`device_kind`). The
# first that fits counts, so that "TPU v5", which is what JAX calls a v5p, comes after the others.
# TPUs: docs.cloud.google.com/tpu/docs; GPUs: NVIDIA's data sheets.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "T4": 65e12,
    "TPU v6": 918e12,
    "TPU v5p": 459e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
    "TPU v3": 123e12,
    "TPU v2": 45e12,
}


def peak_flops(device: jax.Device) -> float | None:
    """Operations a second that a device could do; None where its kind is not known here."""
    return next((peak for kind, peak in PEAK_FLOPS.items() if kind in device.device_kind), None)


def model_flops(config: ModelConfig, tokens: int) -> float:
    """Floating-point operations that a training step needs for so many tokens.

    Six for each weight of a matrix product that a token takes part in, and those of the
    attention's two products over the whole window, as PaLM counts them (arXiv 2204.02311,
    Appendix B): nothing for embeddings, norms, what is computed again, or what a causal mask
    spares.
    """
    width, mixture = config.width, config.mixture > 1
    attention = 2 * (config.heads + config.shared_heads) * config.head_dim * width
    mlp = (3 if config.family.gated else 2) * width * config.hidden
    router = width * config.mixture if mixture else 0
    taken = config.experts_per_token if mixture else 1
    weights = config.layers * (attention + taken * mlp + router) + width * config.vocab
    return float(tokens) * (6 * weights + 12 * config.layers * width * config.window)


class Meter:
    """Figures on the speed of a loop, between one mark and the next."""

    def __init__(self, step: int, tokens: int, flops: float, peak: float | None) -> None:
        """Begins to measure.

        Args:
          step: that was done last.
          tokens: of a step.
          flops: of a step (`model_flops`).
          peak: what all devices together could do in a second, if that is known.
        """
        self._tokens, self._flops, self._peak = tokens, flops, peak
        self._step, self._time, self._waited = step, time.perf_counter(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts what is done inside as waiting for data."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    def mark(self, step: int) -> dict[str, float]:
        """Figures on the steps since the last mark.

        Returns:
          tokens_per_s; step_seconds, the mean; input_share, the part of the time in which the
          loop waited for data; model_flops_per_s; and, where the peak is known, mfu, model FLOPs
          utilization, their share of it.
        """
        now, steps = time.perf_counter(), step - self._step
        seconds = max(now - self._time, 1e-9)
        speed = steps * self._flops / seconds
        found = {
            "tokens_per_s": round(steps * self._tokens / seconds, 1),
            "step_seconds": round(seconds / max(steps, 1), 6),
            "input_share": round(self._waited / seconds, 4),
            "model_flops_per_s": float(f"{speed:.4g}"),
        }
        if self._peak is not None:
            found["mfu"] = round(speed / self._peak, 4)
        self._step, self._time, self._waited = step, now, 0.0
        return found


class Trace:
    """A trace of a few steps of a loop, once those are over in which programs are compiled.

    For `ui.perfetto.dev` (`perfetto_trace.json.gz`), XProf or TensorBoard.
    """

    def __init__(self, directory: pathlib.Path, first: int, steps: int) -> None:
        """Plans a trace of `steps` steps of a loop that goes on from step `first`; 0 is none."""
        self._directory = directory
        self._begin = first + _STEPS_BEFORE_TRACE
        self._end = self._begin + steps
        self._running = False

    def __call__(self, step: int, result: Any) -> None:
        """Is told that a step has been begun, and of what it will return."""
        if self._begin < self._end and step in (self._begin, self._end):
            jax.block_until_ready(result)
            if step == self._begin:
                jax.profiler.start_trace(self._directory, create_perfetto_trace=True)
                self._running = True
            else:
                self.stop()

    def stop(self) -> None:
        """Ends the trace where it is, if it has begun."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
