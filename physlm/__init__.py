"""Training, decoding and judging small transformers on iGSM, sharded over a JAX mesh.

`physlm.load(directory)` reads a run's model for analysis (`physlm.analysis`).
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
