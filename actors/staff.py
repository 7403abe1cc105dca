"""The working actors of one node, in pools by what they do."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..catalog.errors import ClusterError
from ..pipeline.activity import POOLS
from .budget import Budget
from .growth import GrowingPool, keep_growing
from .lent import LentReaders
from .pool import Pool
from .workers import Classifier, Cropper, DetectorActor, Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..pipeline.pools import PoolPlan
    from ..pipeline.settings import Settings


class Staff:
    """Pools of the caller's node, which grow with what waits for them.

    Parameters
    ----------
    settings, batch_size
        For the actors.
    plan
        How many there are to be.

    Attributes
    ----------
    readers, detectors, croppers, classifiers
        The pools; `classifiers` by the crop model's column prefix.
    lent
        Other nodes' readers, which are among the readers.
    scenes
        Scenes in flight: as many as the readers carry that there are just now.
    crop_bytes
        Size of a prepared crop for each crop model, known when all stand.
    """

    def __init__(self, settings: Settings, plan: PoolPlan, batch_size: int) -> None:
        self._plan = plan
        self.scenes = Budget(plan.scenes_with(plan.readers.min))
        self.crop_bytes: dict[str, int] = {}
        here = ray.get_runtime_context().get_node_id()
        # Threads and processes are bounded by the counts; only the detectors claim cores or GPUs.
        free = _on(here, num_cpus=0)
        detector = _on(here, num_cpus=0 if plan.gpus else 1, num_gpus=plan.gpus)
        classifier = _on(here, num_cpus=0, num_gpus=plan.classifier_gpus)
        specs = settings.job.crop_models

        def hire_reader(node: str) -> Any:
            return Reader.options(**_on(node, num_cpus=0)).remote(settings, batch_size, 2)

        def hire_classifier(name: str) -> Callable[[], Any]:
            return lambda: Classifier.options(**classifier).remote(settings, name, plan.threads)

        self.detectors = GrowingPool(
            "detector",
            plan.detectors,
            lambda: DetectorActor.options(**detector).remote(settings, plan.threads),
            self._prove_detector,
            stands=_stands,
        )
        self.readers = GrowingPool(
            "reader",
            plan.readers,
            lambda: hire_reader(here),
            _stands,
            depth=math.ceil(plan.scenes / plan.readers.max) * 2,
            stands=_stands,
            changed=self._carry,
            wanted=self._starved,
        )
        self.lent = LentReaders(self.readers, hire_reader)
        self.croppers: Pool = Pool("cropper", [])
        if specs:
            self.croppers = GrowingPool(
                "cropper",
                plan.croppers,
                lambda: Cropper.options(**free).remote(settings),
                lambda actor: actor.input_bytes.remote(),
                stands=_stands,
            )
        self.classifiers = {
            spec.name: GrowingPool(
                "classifier",
                plan.classifiers,
                hire_classifier(spec.name),
                lambda actor: actor.fill.remote(),
                depth=16,
                stands=_stands,
            )
            for spec in specs
        }

    @property
    def pools(self) -> dict[str, list[Pool]]:
        """The pools by what they do (`POOLS`), those without actors left out."""
        some: list[list[Pool]] = [[self.readers], [self.detectors], [self.croppers]]
        some.append([*self.classifiers.values()])
        return {
            name: pools
            for name, pools in zip(POOLS, some, strict=True)
            if any(pool.actors for pool in pools)
        }

    async def stand(self) -> list[str]:
        """Wait until all are fit for work, and let the pools grow from then on.

        Returns
        -------
        list[str]
            The detectors' devices.

        Raises
        ------
        ClusterError
            If a GPU was given and torch doesn't see it.
        """
        growing = [
            pool for pools in self.pools.values() for pool in pools if isinstance(pool, GrowingPool)
        ]
        proven = dict(
            zip(growing, await asyncio.gather(*(pool.proven() for pool in growing)), strict=True)
        )
        if isinstance(self.croppers, GrowingPool):
            self.crop_bytes = proven[self.croppers][0]
        self._growing = asyncio.create_task(keep_growing(growing))
        return proven[self.detectors]

    def _starved(self) -> bool:
        """Whether detectors have nothing to do, and scenes wait for a reader."""
        return self.scenes.waiting > 0 and self.detectors.load < len(self.detectors.actors)

    def _carry(self) -> None:
        """Let as many scenes in as there are readers for; each lent one is for one more."""
        lent = len(self.readers.actors) - self.readers.size
        self.scenes.limit = self._plan.scenes_with(self.readers.size) + lent

    async def _prove_detector(self, actor: Any) -> str:
        device = await actor.device.remote()
        if self._plan.gpus and device == "cpu":
            raise ClusterError(
                f"A detector on {ray.util.get_node_ip_address()} was given a GPU but runs on the CPU: "
                "install a CUDA build of torch there, or set cluster.detectors.num_gpus to 0."
            )
        return device


def _stands(actor: Any) -> Any:
    return actor.__ray_ready__.remote()


def _on(node: str, **resources: Any) -> dict[str, Any]:
    return {
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        "max_restarts": -1,
        "max_task_retries": 0,
        **resources,
    }
