"""The working actors of one node, in pools by what they do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..pipeline.activity import POOLS
from .pool import Pool
from .workers import Classifier, Cropper, DetectorActor, Reader

if TYPE_CHECKING:
    from ..pipeline.pools import PoolPlan
    from ..pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Staff:
    """Pools of a node; `classifiers` by the crop model's column prefix."""

    readers: Pool
    detectors: Pool
    croppers: Pool
    classifiers: dict[str, Pool]

    @property
    def pools(self) -> dict[str, list[Pool]]:
        """The pools by what they do (`POOLS`), those without actors left out."""
        some = ([self.readers], [self.detectors], [self.croppers], list(self.classifiers.values()))
        return {
            name: pools
            for name, pools in zip(POOLS, some, strict=True)
            if any(pool.actors for pool in pools)
        }

    @classmethod
    def hire(cls, settings: Settings, plan: PoolPlan, batch_size: int) -> Staff:
        """Start the actors on the node of the caller."""
        # Threads and processes are bounded by the counts; only the detectors claim cores or GPUs.
        free = _here(num_cpus=0)
        detector = _here(num_cpus=0 if plan.gpus else 1, num_gpus=plan.gpus)
        classifier = _here(num_cpus=0, num_gpus=plan.classifier_gpus)
        crop_models = settings.job.crop_models
        return cls(
            readers=_pool(
                "reader",
                [
                    Reader.options(**free).remote(settings, batch_size, 2)
                    for _ in range(plan.readers)
                ],
                depth=math.ceil(plan.scenes / plan.readers) * 2,
            ),
            detectors=_pool(
                "detector",
                [
                    DetectorActor.options(**detector).remote(settings, plan.threads)
                    for _ in range(plan.detectors)
                ],
            ),
            croppers=_pool(
                "cropper",
                [Cropper.options(**free).remote(settings) for _ in range(plan.croppers)]
                if crop_models
                else [],
            ),
            classifiers={
                spec.name: _pool(
                    "classifier",
                    [
                        Classifier.options(**classifier).remote(settings, spec.name, plan.threads)
                        for _ in range(plan.classifiers)
                    ],
                    depth=16,
                )
                for spec in crop_models
            },
        )


def _pool(name: str, actors: list[Any], depth: int = 2) -> Pool:
    return Pool(name, actors, depth, stands=lambda actor: actor.__ray_ready__.remote())


def _here(**resources: Any) -> dict[str, Any]:
    node = ray.get_runtime_context().get_node_id()
    return {
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        "max_restarts": -1,
        "max_task_retries": 0,
        **resources,
    }
