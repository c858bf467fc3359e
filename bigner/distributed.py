"""The processes of a run: who this one is, every collective, the start and the orderly exit.

A ``World`` is passed by hand; there is no global one. With a single process each collective is
the identity, so a laptop runs the lines a cluster runs.
"""

from __future__ import annotations

import gc
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from bigner.config.checks import launched_world_size
from bigner.config.schema import RunConfig
from bigner.errors import BignerError, LaunchError, LostRankError, RunError

_SECONDS_TO_ANSWER = 3.0
_joined = count()
_meeting: list[tuple[Any, int, int]] = []


@dataclass(frozen=True, slots=True)
class World:
    """This process among all processes of the run, and what they do together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    control: Any = None
    """A process group on the host, where the default one is not: numbers it agrees on do not wait
    for what a GPU has still to compute."""
    closers: list[Callable[[], None]] = field(default_factory=list, compare=False)
    """What is to be let go of before the process group is."""

    def when_closed(self, action: Callable[[], None]) -> None:
        """Do something before the process group goes, if the process lives on after it."""
        self.closers.append(action)

    @property
    def is_main(self) -> bool:
        """Whether this rank prints, logs and writes what is written once."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise sum over ranks; every rank gets it. The input is left as it is."""
        if self.size == 1:
            return values
        total = values.to(self.device, copy=True)
        dist.all_reduce(total)
        return total

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise maximum over ranks; every rank gets it."""
        if self.size == 1:
            return values
        largest = values.to(self.device, copy=True)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest

    def agree_on_max(self, *numbers: int) -> list[int]:
        """The greatest of each of some small numbers that ranks have, on every rank."""
        values = torch.tensor(numbers, dtype=torch.int32)
        if self.size > 1:
            dist.all_reduce(values, dist.ReduceOp.MAX, group=self.control)
        return values.tolist()

    def all_gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """The tensor of every rank, in rank order; all must have one shape and dtype."""
        if self.size == 1:
            return [values]
        values = values.to(self.device).contiguous()
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(gathered, values)
        return gathered

    def broadcast(self, values: torch.Tensor, source: int = 0) -> torch.Tensor:
        """The tensor of rank ``source``, on every rank; same shape and dtype everywhere."""
        if self.size == 1:
            return values
        values = values.to(self.device).contiguous()
        dist.broadcast(values, source)
        return values

    def gather_objects(self, item: Any) -> list[Any] | None:
        """Small Python values of all ranks, in rank order, on rank 0; None elsewhere."""
        if self.size == 1:
            return [item]
        items: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(item, items)
        return items

    def share_object(self, item: Any) -> Any:
        """Rank 0's small Python value, on every rank."""
        if self.size == 1:
            return item
        box = [item]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def send_to_main(self, values: torch.Tensor) -> None:
        """Give rank 0 a tensor, which it takes with ``receive``; for the other ranks."""
        dist.send(values.to(self.device).contiguous(), dst=0)

    def receive(self, numel: int, dtype: torch.dtype, source: int) -> torch.Tensor:
        """A flat tensor that rank ``source`` gives; for rank 0."""
        values = torch.empty(numel, dtype=dtype, device=self.device)
        dist.recv(values, src=source)
        return values

    def main_first(self, action: Callable[[], None]) -> None:
        """Run ``action`` on rank 0 while the others wait; its error is raised on every rank."""
        failure: BignerError | None = None
        try:
            if self.is_main:
                action()
        except BignerError as error:
            failure = error
        except Exception as error:
            # A defect, with its traceback here; the others must not wait for what never comes.
            self.share_object(RunError(f"rank 0 failed: {type(error).__name__}: {error}"))
            raise
        failure = self.share_object(failure)
        if failure is not None:
            raise failure

    def lost_rank(self, error: Exception, step: int) -> LostRankError | None:
        """What a collective's failure means: which ranks are gone; None if it is another error."""
        text = str(error)
        if not any(mark in text for mark in ("gloo", "Gloo", "NCCL", "Connection closed by peer")):
            return None
        silent = self._silent_ranks()
        names = " and ".join(f"rank {rank}" for rank in silent) or "a rank"
        # Around it stand a place in gloo's source and advice that is none.
        reason = re.sub(r"^\[\S*\] ", "", text.splitlines()[0]).partition(". This is")[0][:160]
        speaker = min(set(range(self.size)) - set(silent), default=0)
        return LostRankError(
            f"after step {step}: {names} ended or did not answer in time ({reason}); the same "
            f"command goes on from the last checkpoint",
            speaker,
        )

    def _silent_ranks(self) -> list[int]:
        """The ranks that do not notice the same failure within some seconds."""
        found: list[list[int]] = []
        # In a thread, for a store whose process hangs does not answer, and waits for no timeout.
        asking = threading.Thread(target=lambda: found.append(self._ask_ranks()), daemon=True)
        asking.start()
        asking.join(2 * _SECONDS_TO_ANSWER)
        return found[0] if found else self._holders_of_the_store()

    def _ask_ranks(self) -> list[int]:
        try:
            # A store that is gone is reported by torch with pages of its stack.
            place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            socket.create_connection(place, _SECONDS_TO_ANSWER).close()
            store = dist.distributed_c10d._get_default_store()
            store.set(f"bigner/answer/{self.rank}", "here")
            deadline = time.monotonic() + _SECONDS_TO_ANSWER
            while True:
                silent = [
                    rank for rank in range(self.size) if not store.check([f"bigner/answer/{rank}"])
                ]
                if not silent or time.monotonic() > deadline:
                    return silent
                time.sleep(0.1)
        except (RuntimeError, ValueError, OSError):
            return self._holders_of_the_store()

    def _holders_of_the_store(self) -> list[int]:
        """Rank 0, unless torchrun holds it: when that ends, so do all ranks."""
        by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return [] if by_torchrun or self.is_main else [0]

    def require_everywhere(self, here: bool, failure: BignerError) -> None:
        """Raise ``failure`` on every rank unless ``here`` holds on each."""
        missing = self.sum(torch.tensor(0 if here else 1))
        if int(missing):
            raise failure


def launched_rank() -> int:
    """This process's rank as the launcher put it in the environment; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def start(*, sharded: bool, timeout: timedelta = timedelta(minutes=10)) -> World:
    """Join the other processes of the run, as ``torchrun`` or ``deepspeed`` set the environment.

    Args:
        sharded: the strategy needs a process group, even of one process.
        timeout: how long a collective waits for the slowest rank.

    Raises:
        LaunchError: the environment of the launcher is incomplete, several processes were
            launched for a strategy of one, or there are more local ranks than GPUs.
    """
    launched = "RANK" in os.environ
    size = launched_world_size()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if size > 1 and not sharded:
        raise LaunchError(
            f"strategy 'single' runs in one process and {size} were launched; "
            f"use `bigner train`, or set strategy.kind to fsdp or zero"
        )
    device = choose_device(local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif size > 1 and "OMP_NUM_THREADS" not in os.environ:
        # Without this every rank would start a thread for every core.
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_size))
    control = _join(device, timeout, launched=launched) if sharded else None
    return World(launched_rank(), size, local_rank, device, control)


def _join(device: torch.device, timeout: timedelta, *, launched: bool) -> Any:
    """Make the process group, and on GPUs one on the host beside it, which is returned."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    bound = device if backend == "nccl" else None
    if not launched:
        store = torch._C._distributed_c10d.HashStore()
        dist.init_process_group(backend, store=store, rank=0, world_size=1, device_id=bound)
        return None
    _check_rendezvous()
    kept, rank, size = _launched_store(timeout)
    kept.set_timeout(timeout)
    dist.init_process_group(
        backend,
        # What an earlier world of these processes left there is not to be taken for this one's.
        store=dist.distributed_c10d.PrefixStore(f"bigner/{next(_joined)}", kept),
        rank=rank,
        world_size=size,
        timeout=timeout,
        device_id=bound,
    )
    return dist.new_group(backend="gloo", timeout=timeout) if backend == "nccl" else None


def _launched_store(timeout: timedelta) -> tuple[Any, int, int]:
    """Where the ranks of a launch meet, this rank, and their number.

    Kept for as long as the process lives: a rank that opens its next world would otherwise meet
    the others in a store that rank 0 is about to close.
    """
    if not _meeting:
        store, rank, size = next(iter(rendezvous("env://", timeout=timeout)))
        _meeting.append((store, rank, size))
    return _meeting[0]


def start_for(config: RunConfig) -> World:
    """The world that a run wants.

    Raises:
        LaunchError: as ``start``.
    """
    timeout = timedelta(seconds=config.collective_timeout)
    return start(sharded=config.strategy.needs_process_group, timeout=timeout)


@contextmanager
def opened(config: RunConfig) -> Iterator[World]:
    """The world that a run wants, closed again for the next one of this process; collective.

    The processes of the command line close theirs with ``leave_group``.

    Raises:
        LaunchError: as ``start``, or there is a process group already.
    """
    if dist.is_initialized():
        raise LaunchError(
            "this process is in a process group already, and a run opens its own; call "
            "torch.distributed.destroy_process_group() first"
        )
    world = start_for(config)
    try:
        yield world
    except BaseException as error:
        # After a failure that is not told, or with a rank lost, others may be stuck: do not wait.
        is_told = isinstance(error, BignerError) and not isinstance(error, LostRankError)
        if world.size == 1 or is_told:
            _close(world)
        raise
    _close(world)


def _close(world: World) -> None:
    if not dist.is_initialized():
        return
    # Whoever still holds a group holds its threads, and those of gloo are not to be there any more
    # when the interpreter shuts down (see ``leave_group``).
    try:
        for action in world.closers:
            action()
        gc.collect()
    finally:
        dist.destroy_process_group()


def choose_device(local_rank: int) -> torch.device:
    """The device of a rank, by what there is and what the environment says.

    Raises:
        LaunchError: there are more local ranks than GPUs.
    """
    if os.environ.get("DS_ACCELERATOR", "cuda") != "cuda" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise LaunchError(
            f"local rank {local_rank} has no GPU, {torch.cuda.device_count()} are visible; launch "
            f"fewer processes on this machine"
        )
    return torch.device("cuda", local_rank)


def _check_rendezvous() -> None:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise LaunchError(
            f"RANK is set and {' and '.join(missing)} not; launch with torchrun or deepspeed, "
            f"or unset RANK to run one process"
        )


def leave_group(code: int) -> None:
    """End this process in order if it is in a process group: the only way out of such a run.

    A gloo worker thread may drop the last reference to a finished collective's tensors after the
    interpreter began to shut down, cannot take the GIL then and aborts the process (SIGABRT after
    all work was done, about one run in ten). So the group is taken down first and the process
    left without the interpreter's shutdown.
    """
    if not dist.is_initialized():
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if code == 0:
        # After a failure the other ranks may be stuck in a collective: do not wait for them.
        dist.destroy_process_group()
    os._exit(code)
