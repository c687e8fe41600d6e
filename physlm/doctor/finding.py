"""What a check is asked and what it finds.

What needs JAX is imported where it is used, here and in `machine`: where JAX is missing, the doctor
is there to say so.
"""

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from etils import epath

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from physlm.experiments.config import Settings

Status = Literal["ok", "warning", "failed"]


class Finding(NamedTuple):
    """What a check has found.

    Attributes:
        status: ok; warning, where studies may run all the same; or failed.
        seen: what was seen.
        advice: what to do about it; empty where nothing is to be done.
    """

    status: Status
    seen: str
    advice: str = ""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be examined.

    Attributes:
        path: the directory that is to hold results, of this machine or of a bucket.
        mesh: assignments to settings of the mesh, as `mesh.tensor=2`.
        distributed: how this process joins others, as `physlm.devices.join` takes it; empty where
            it is alone.
    """

    path: epath.Path
    mesh: tuple[str, ...] = ()
    distributed: str = ""

    @functools.cached_property
    def settings(self) -> "Settings":
        """Those of the scale `smoke`, with a model that can be divided over the mesh.

        Raises:
            ValueError: a setting of the mesh is not allowed.
        """
        from physlm.experiments import config as config_lib

        chosen = config_lib.parse_assignments(self.mesh)
        config = config_lib.override(config_lib.base("smoke"), chosen)
        mesh, model = config.mesh, config.model
        heads = math.lcm(model.heads, mesh.tensor, mesh.fsdp // math.gcd(mesh.fsdp, model.head_dim))
        return config_lib.resolve(config_lib.override(config, {"model.heads": heads}))

    @functools.cached_property
    def made(self) -> "Mesh":
        """The mesh, over the devices that are here.

        Raises:
            ValueError: there are too few.
        """
        from physlm import sharding

        return sharding.make_mesh(self.settings.mesh)

    @functools.cached_property
    def batch(self) -> int:
        """Sequences of a step: as many as at the scale, or more where devices are to share them."""
        from physlm import sharding

        shards = sharding.batch_shards(self.made)
        return -(-self.settings.train.batch // shards) * shards
