"""Training, decoding and judging small transformers on iGSM, sharded over a JAX mesh.

`physlm.load(directory)` reads a run's model for analysis (`physlm.analysis`).

The modules, from the bottom up:

`architecture`, `attention`, `canon`, `feedforward`, `block`, `model`: the decoder.
`sharding`, `devices`: the mesh, and hosts.
`cache`, `branches`, `decoding`: the cache, and strategies of decoding with an engine for them.
`adaptation`, `probe`, `matrices`: which parameters are trained.
`optimizer`, `step`, `population`, `start`, `train`: training, of one run or several as one program.
`checkpoint`, `journal`, `metrics`, `progress`, `throughput`, `paths`, `clock`: what it leaves.
`cells`, `evaluate`, `probing`, `detection`, `overlap`, `practice`: test problems, and judging.
`experiments`: studies, sweeps and reports.
`export`, `adopt`, `huggingface`, `analysis`: to and from other tools.
`doctor`, `tools`: whether it can run here, and what it takes on accelerators.
"""

from typing import TYPE_CHECKING, Any

from data_gen import interrupts

if TYPE_CHECKING:
    from physlm.analysis import load as load

__version__ = "0.1.0"

interrupts.leave_while_imported()

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # JAX is imported by whoever needs it, not by every `import physlm`.
    if name == "load":
        from physlm.analysis import load

        return load
    raise AttributeError(f"module 'physlm' has no attribute {name!r}")
