"""The coordinators of a run: one on each node that can have one, as nodes come and go."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import ray
from ray.exceptions import ActorUnavailableError, RayTaskError

from ..catalog.errors import ClusterError, GeosweepError
from ..pipeline.activity import Activity
from ..pipeline.nodes import Node, alive, runs_on_gpus, still_wanted, sweeping
from .demand import Demand
from .loans import Loans
from .seat import (
    CLOSE_SECONDS,
    GONE,
    POLL_SECONDS,
    START_SECONDS,
    Seat,
    first_line,
    hear,
    told,
    wait_for,
)

if TYPE_CHECKING:
    from ..pipeline.settings import Settings

log = logging.getLogger("geosweep")

NODES_SECONDS = 3.0
"""How often the cluster is asked for its nodes."""
AUTOSCALE_SECONDS = 900.0
"""Patience with the autoscaler while there is no node to work on."""


class Seats:
    """Sets coordinators on nodes, watches over them, and takes them away when no work is left.

    Parameters
    ----------
    settings
        The job.
    alone
        Whether the cluster is one of this machine alone, which no node can join.

    Attributes
    ----------
    devices
        Those of all detectors, of nodes that have gone, too.

    Raises
    ------
    ClusterError
        If the job asks the autoscaler for CPUs, and the run would be on GPUs.
    """

    def __init__(self, settings: Settings, *, alone: bool) -> None:
        self._settings = settings
        self._job = settings.job
        self._on_gpus = runs_on_gpus(self._job, alive(ray.nodes()))
        asked = self._job.cluster.autoscale
        self._demand = Demand(asked.unit) if asked is not None and not alone else None
        self._seats: list[Seat] = []
        self._left_out: set[str] = set()
        self._faulty: list[Node] = []
        self._loans = Loans(self._job, on_gpus=self._on_gpus)
        self._past = Activity()
        self._looked = 0.0
        self._empty_since: float | None = None
        self.devices: list[str] = []

    def __iter__(self) -> Iterator[Seat]:
        return iter(list(self._seats))

    def answers(self) -> dict[ray.ObjectRef, Seat]:
        """Those of coordinators that are just being set, for `answered`."""
        return {seat.answer: seat for seat in self._seats if seat.answer is not None}

    def open(self, scenes: int | None) -> None:
        """Wait until coordinators stand on all nodes; with an autoscaler, on the first that comes.

        Parameters
        ----------
        scenes
            As for `look`.

        Raises
        ------
        ClusterError
            If there is no node to work on, or no room on those there are.
        GeosweepError
            If a coordinator can't work.
        """
        self.look(scenes)
        while not self.devices or not all(map(self._can_do_without, self._seats)):
            answers = self.answers()
            for answer in wait_for(list(answers)):
                self.answered(answers[answer], answer)
            self.look(scenes)
        log.info("detectors: %s", ", ".join(self.devices))

    def look(self, scenes: int | None) -> None:
        """See what has become of the nodes, now and then; those that came get a coordinator.

        Parameters
        ----------
        scenes
            At most so many are still to be handed out; None if nobody knows. With none, no node is
            taken on or asked for.

        Raises
        ------
        ClusterError
            If there is no node left, and none to be expected.
        """
        now = time.monotonic()
        if self._seats and now - self._looked < NODES_SECONDS:
            return
        self._looked = now
        nodes = alive(ray.nodes())
        there = {node.id for node in nodes}
        for seat in self:
            if seat.overdue:
                self._give_up(seat)
            elif seat.stands and seat.node.id not in there:
                self.lost(seat)
        if scenes != 0:
            self._take_on(nodes, scenes)
            self._ask_for_more(scenes)
            self._check_hope()
        elif self._demand is not None:
            self._demand.end()
        self._loans.settle(nodes, self._seats, anew=scenes != 0)

    def _take_on(self, nodes: list[Node], scenes: int | None) -> None:
        known = {seat.node.id for seat in self._seats} | self._left_out
        able = sweeping(self._job, nodes, on_gpus=self._on_gpus)
        for node in [node for node in able if node.id not in known][:scenes]:
            late = bool(self.devices)
            try:
                self._seats.append(Seat(self._settings, node, late=late))
            except GeosweepError as error:
                if not late:
                    raise
                self._leave_out(node, str(error), faulty=True)

    def _ask_for_more(self, scenes: int | None) -> None:
        """Those that can't work count, too: others in their place would hardly fare better, and cost."""
        if self._demand is not None:
            working = [seat.node for seat in self._seats]
            known = {node.id for node in working} | self._left_out
            number = still_wanted(self._job, [*working, *self._faulty], scenes=scenes)
            self._demand.hold(number, known)

    def _check_hope(self) -> None:
        """Raise if there is nobody to work, and nobody to wait for."""
        if self._seats:
            self._empty_since = None
            return
        asked = self._job.cluster.autoscale
        if self._demand is None or asked is None:
            raise ClusterError(self._nobody())
        if self._empty_since is None:
            self._empty_since = time.monotonic()
            log.info("waiting for the autoscaler to bring some of %d %ss", asked.number, asked.unit)
        if time.monotonic() - self._empty_since > AUTOSCALE_SECONDS:
            raise ClusterError(
                f"No node with a {asked.unit} came within {AUTOSCALE_SECONDS / 60:.0f} min, though "
                f"cluster.autoscale asks for {asked.number}; see in `ray status` what the autoscaler "
                "lacks."
            )

    def _nobody(self) -> str:
        if self.devices:
            return "The last coordinator died and did not come back; see the Ray logs."
        if self._on_gpus and self._job.cluster.autoscale is not None:
            return (
                "cluster.autoscale asks for GPUs, but this machine has none, and no node can join "
                "the cluster that the run started by itself; name a cluster by --address."
            )
        return "No node of the cluster has a CPU to work with; add worker nodes."

    def answered(self, seat: Seat, answer: ray.ObjectRef) -> None:
        """Take in what a coordinator says that was set, or that Ray restarted.

        Raises
        ------
        GeosweepError
            If it can't work, and was there from the beginning.
        """
        restarted = seat.stood
        try:
            devices = seat.stand(answer)
        except RayTaskError as error:
            if not self._can_do_without(seat):
                raise told(error) from None
            self._drop(seat)
            self._leave_out(seat.node, str(told(error)), faulty=True)
        except ActorUnavailableError as error:
            if seat.overdue:
                self._gone(seat, error)
            else:
                time.sleep(POLL_SECONDS)
                seat.ask_again()
        except GONE as error:
            self._gone(seat, error)
        else:
            if not restarted:
                if self.devices and (seat.late or self._demand is not None):
                    log.info("node %s has joined: %s", seat.node.name, ", ".join(devices))
                self.devices += devices
                self.devices.sort()

    def _can_do_without(self, seat: Seat) -> bool:
        """Where nodes come by an autoscaler, no one is there from the beginning but the first."""
        return seat.late or seat.stands or (self._demand is not None and bool(self.devices))

    def lost(self, seat: Seat) -> None:
        """Give a coordinator no more scenes until Ray has restarted it; the others go on."""
        if not seat.stands or seat not in self._seats:
            return  # another of its scenes told us already
        log.warning("a coordinator died; its scenes are tried again")
        self._past += seat.lose()
        seat.expect()

    def _gone(self, seat: Seat, error: Exception) -> None:
        """It doesn't come back, mostly since its node is gone."""
        if not (self._can_do_without(seat) or seat.stood):
            raise ClusterError(f"The actors could not be started: {first_line(error)}.") from error
        self._drop(seat)
        self._left_out.add(seat.node.id)

    def _give_up(self, seat: Seat) -> None:
        """Its actors don't find room."""
        reason = (
            f"The cluster had no room for the detectors within {START_SECONDS:.0f} s; lower "
            "cluster.detectors in the job, or wait for other jobs to end."
        )
        if not (seat.late or seat.stood or self._demand is not None):
            raise ClusterError(reason)
        self._drop(seat)
        self._leave_out(seat.node, reason, faulty=False)

    def _leave_out(self, node: Node, reason: str, *, faulty: bool) -> None:
        log.warning("node %s is left out: %s", node.name, reason)
        self._left_out.add(node.id)
        if faulty:
            self._faulty.append(node)

    def _drop(self, seat: Seat) -> None:
        self._seats.remove(seat)
        self._past += seat.lose()
        seat.kill()

    def progress(self, patience: float = 0.0) -> Activity | None:
        """What was done so far; None if nobody was asked. Coordinators are asked now and then.

        Parameters
        ----------
        patience
            Seconds to wait for all answers; by default those that are there.
        """
        if not hear(self._seats, patience):
            return None
        return sum((seat.activity for seat in self._seats), self._past)

    def release_idle(self) -> None:
        """Close the coordinators that have no scene, so that their nodes are free for others, or go."""
        idle = [seat for seat in self._seats if seat.load == 0]
        hear(idle, CLOSE_SECONDS)
        for seat in idle:
            self._seats.remove(seat)
            self._past += seat.lose()
            if seat.stands:
                seat.close()
            else:
                seat.kill()

    def close(self) -> None:
        """Give everything back."""
        if self._demand is not None:
            self._demand.end()
        closing = [seat.close() for seat in self._seats]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        for seat in self:
            seat.kill()
        self._seats = []
