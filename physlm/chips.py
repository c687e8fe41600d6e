"""Chips: what their makers say of them, and what they cost."""

from typing import NamedTuple

import jax


class Chip(NamedTuple):
    """One accelerator chip, or one GPU, as its maker describes it.

    Attributes:
      kind: part of what JAX calls it (`device_kind`).
      flops: dense bfloat16 operations a second.
      memory: bytes of its own memory.
      bandwidth: bytes a second between it and its memory.
      interconnect: bytes a second that it can send to other chips, the sum over its links, each
        in one direction; as many can arrive at the same time.
      links: how many links those are, each to one neighbour; 1 where a switch leads to all.
      price: dollars an hour; None where there is no one price.
    """

    kind: str
    flops: float
    memory: float
    bandwidth: float
    interconnect: float
    links: int
    price: float | None


# TPUs: docs.cloud.google.com/tpu/docs/v5e, v5p and v6e. Google states a chip's interconnect in
# both directions together, 400, 1,200 and 800 GB/s: half of that here. Its older pages have 1,600,
# 4,800 and 3,584 Gbit/s, which is one direction, for v6e 12% more of it. Of a v5e's memory programs
# get 15.75 GiB. The GPU: NVIDIA's data sheet of the H200 SXM, NVLink in one direction. Prices are
# Google Cloud's list for US regions, on demand, written down in November 2026 without a way to look
# them up; clouds differ in what they ask for the GPU.
CHIPS = {
    "v5e": Chip("TPU v5 lite", 197e12, 16e9, 819e9, 200e9, 4, 1.20),
    "v5p": Chip("TPU v5", 459e12, 95e9, 2765e9, 600e9, 6, 4.20),
    "v6e": Chip("TPU v6 lite", 918e12, 32e9, 1638e9, 400e9, 4, 2.70),
    "h200": Chip("H200", 989e12, 141e9, 4800e9, 450e9, 1, None),
}

# Dense bfloat16 operations a second by a part of what JAX calls a device; the first that fits.
_PEAK = {
    "H200": CHIPS["h200"].flops,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "T4": 65e12,
    "TPU v6": CHIPS["v6e"].flops,
    "TPU v5p": CHIPS["v5p"].flops,
    "TPU v5 lite": CHIPS["v5e"].flops,
    "TPU v5e": CHIPS["v5e"].flops,
    "TPU v5": CHIPS["v5p"].flops,
    "TPU v4": 275e12,
    "TPU v3": 123e12,
    "TPU v2": 45e12,
}


def peak_flops(device: jax.Device) -> float | None:
    """Operations a second that a device could do; None where its kind is not known here."""
    return next((peak for name, peak in _PEAK.items() if name in device.device_kind), None)
