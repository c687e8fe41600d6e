"""Accelerator chips, by what their makers publish."""

from typing import NamedTuple

from physlm.throughput import PEAK_FLOPS


class Chip(NamedTuple):
    """One accelerator chip, or one GPU, as its maker describes it.

    Attributes:
      flops: dense bfloat16 floating-point operations a second.
      bandwidth: bytes a second between the chip and its memory.
      interconnect: bytes a second that the chip can send to other chips, summed over its links;
        it can receive as many at the same time.
      links: number of those links, each to one neighbouring chip; 1 where a switch connects all
        chips.
    """

    flops: float
    bandwidth: float
    interconnect: float
    links: int


# TPUs: docs.cloud.google.com/tpu/docs/v4, v5e, v5p and v6e. Google states a chip's interconnect in
# both directions together, 400 (v5e), 1,200 and 800 GB/s: half of that here. Its older pages have
# 1,600, 4,800 and 3,584 Gbit/s, which is one direction, for v6e 12% more of it. For v4 its pages
# have none: a link carries 50 GB/s in each direction (arXiv 2304.01433). The GPU: NVIDIA's data
# sheet of the H200 SXM, NVLink in one direction.
CHIPS = {
    "v4": Chip(PEAK_FLOPS["TPU v4"], 1200e9, 300e9, 6),
    "v5e": Chip(PEAK_FLOPS["TPU v5e"], 819e9, 200e9, 4),
    "v5p": Chip(PEAK_FLOPS["TPU v5p"], 2765e9, 600e9, 6),
    "v6e": Chip(PEAK_FLOPS["TPU v6"], 1638e9, 400e9, 4),
    "h200": Chip(PEAK_FLOPS["H200"], 4800e9, 450e9, 1),
}
