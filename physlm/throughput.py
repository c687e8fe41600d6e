"""The cost and speed of training steps: model FLOPs, tokens/s, MFU; and profiler traces."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from etils import epath

from physlm import clock
from physlm.architecture import ModelConfig

# Steps that are not traced: in the first ones programs are compiled and the first data is made.
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
    """The peak FLOPs a second of a device (bfloat16, dense); None if its kind is not known here."""
    return next((peak for kind, peak in PEAK_FLOPS.items() if kind in device.device_kind), None)


def model_flops(config: ModelConfig, tokens: int) -> float:
    """The floating-point operations of a training step.

    They are counted as for PaLM (arXiv 2204.02311, Appendix B): for each token six for each weight
    that it is multiplied with, and those of attention's two products over the whole window.
    Embeddings, norms and recomputation do not count, and a causal mask saves nothing.

    Args:
      config: the model.
      tokens: the number of tokens of the step.
    """
    width, mixture = config.width, config.mixture > 1
    attention = 2 * (config.heads + config.shared_heads) * config.head_dim * width
    mlp = (3 if config.family.gated else 2) * width * config.hidden
    router = width * config.mixture if mixture else 0
    taken = config.experts_per_token if mixture else 1
    weights = config.layers * (attention + taken * mlp + router) + width * config.vocab
    return float(tokens) * (6 * weights + 12 * config.layers * width * config.window)


class Meter:
    """Measures the speed of a loop, from one mark to the next; pauses do not count."""

    def __init__(self, step: int, tokens: int, flops: float | None, peak: float | None) -> None:
        """Begins to measure.

        Args:
          step: the number of steps done before.
          tokens: the number of tokens of a step.
          flops: the FLOPs of a step (`model_flops`); None where not all of a model is trained, as
            these are then not counted.
          peak: the peak FLOPs a second of all devices together; None if it is not known.
        """
        self._tokens, self._flops, self._peak = tokens, flops, peak
        self._step, self._time, self._waited = step, clock.seconds(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside the context as waiting for data."""
        started = clock.seconds()
        yield
        self._waited += clock.seconds() - started

    def mark(self, step: int) -> dict[str, float]:
        """Returns the figures of the steps since the last mark, and sets a new one.

        Args:
          step: the number of steps done now.

        Returns:
          A dictionary with tokens_per_s; step_seconds, the mean; input_share, the share of the time
          in which the loop waited for data; if they are counted, model_flops_per_s; and, if the
          peak is known, mfu, which is these as a share of the peak (model FLOPs utilization).
        """
        now, steps = clock.seconds(), step - self._step
        seconds = max(now - self._time, 1e-9)
        found = {
            "tokens_per_s": round(steps * self._tokens / seconds, 1),
            "step_seconds": round(seconds / max(steps, 1), 6),
            "input_share": round(self._waited / seconds, 4),
        }
        if self._flops is not None:
            speed = steps * self._flops / seconds
            found["model_flops_per_s"] = float(f"{speed:.4g}")
            if self._peak is not None:
                found["mfu"] = round(speed / self._peak, 4)
        self._step, self._time, self._waited = step, now, 0.0
        return found


class Trace:
    """A profiler trace of a few steps of a loop, after the steps in which programs are compiled.

    It can be opened with `ui.perfetto.dev` (`perfetto_trace.json.gz`), XProf or TensorBoard.
    """

    def __init__(self, directory: epath.Path, first: int, steps: int) -> None:
        """Plans a trace.

        Args:
          directory: where to write it.
          first: the number of steps done before the loop.
          steps: the number of steps to trace; 0 for no trace.
        """
        self._directory = directory
        self._begin = first + _STEPS_BEFORE_TRACE
        self._end = self._begin + steps
        self._running = False

    def __call__(self, step: int, result: Any) -> None:
        """Starts or ends the trace where it is time; to be called after each step is dispatched.

        Args:
          step: the number of the step.
          result: its result, which is waited for before the trace starts or ends.
        """
        if self._begin < self._end and step in (self._begin, self._end):
            jax.block_until_ready(result)
            if step == self._begin:
                jax.profiler.start_trace(self._directory, create_perfetto_trace=True)
                self._running = True
            else:
                self.stop()

    def stop(self) -> None:
        """Ends the trace, if one is running."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
