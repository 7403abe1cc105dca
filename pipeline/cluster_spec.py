"""The job file's `cluster`: actors for each node."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..catalog.strict import Block


class PoolSpec(Block):
    """Size of an actor pool on each node: it starts with `min` and may grow to `max`."""

    min: int | None = Field(default=None, ge=1)
    max: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.max < self.min:
            raise ValueError(
                f"max ({self.max}) is smaller than min ({self.min}); raise one or lower the other"
            )
        return self


class GpuPoolSpec(PoolSpec):
    """The same of actors that may have a GPU, or a share of one, each."""

    num_gpus: float | None = Field(default=None, ge=0)

    @field_validator("num_gpus")
    @classmethod
    def _whole_or_shared(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError("is neither a share of one GPU nor a whole number of them; choose one")
        return value


class AutoscaleSpec(Block):
    """What the autoscaler is to bring up for a run, in all: GPUs, or CPUs for a run without any."""

    gpus: int | None = Field(default=None, ge=1)
    cpus: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.gpus is None) == (self.cpus is None):
            raise ValueError(
                "needs one of gpus and cpus, and not both; write for example {gpus: 4}"
            )
        return self

    @property
    def number(self) -> int:
        """How many."""
        return self.gpus or self.cpus or 0

    @property
    def unit(self) -> Literal["GPU", "CPU"]:
        """Of what, for messages."""
        return "GPU" if self.gpus is not None else "CPU"


class ClusterSpec(Block):
    """Actors for each node; null lets geosweep choose from the node's cores and GPUs.

    A plain number is both bounds of a pool.
    """

    readers: PoolSpec | None = None
    detectors: GpuPoolSpec | None = None
    croppers: PoolSpec | None = None
    classifiers: GpuPoolSpec | None = None
    scenes_in_flight: int | None = Field(default=None, ge=1)
    reader_nodes: bool = False
    autoscale: AutoscaleSpec | None = None

    @field_validator("readers", "detectors", "croppers", "classifiers", mode="before")
    @classmethod
    def _plain_number(cls, value: Any) -> Any:
        if value is None or isinstance(value, (dict, PoolSpec)):
            return value
        if type(value) is not int or value < 1:
            raise ValueError(
                "should be a whole number greater than or equal to 1, or bounds such as "
                "{min: 1, max: 4}"
            )
        return {"min": value, "max": value}
