"""DeepSpeed ZeRO, stages 1, 2 and 3."""

from __future__ import annotations

import ctypes
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from bigner.build_tools import missing_build_tools
from bigner.config.schema import Precision, TrainingConfig
from bigner.distributed import World
from bigner.errors import LaunchError
from bigner.modeling import allocate
from bigner.optim import parameter_groups
from bigner.strategies.adamw import (
    adamw,
    create_adamw_state,
    optimizer_step,
    set_learning_rate,
    set_optimizer_step,
)
from bigner.strategies.base import DTYPES, PendingOutcome, Shard, Strategy
from bigner.strategies.precision import computed_in

SPEAKING_SETTINGS = ("comms_logger", "memory_breakdown", "wall_clock_breakdown")

# DeepSpeed calls collectives by names that torch 2.13 has renamed.
warnings.filterwarnings(
    "ignore", message="`torch.distributed.* is deprecated", category=FutureWarning
)


class Zero(Strategy):
    """The DeepSpeed engine, with torch's AdamW and fp32 masters in every precision."""

    def __init__(
        self,
        model: PreTrainedModel,
        settings: Mapping[str, Any],
        training: TrainingConfig | None,
        precision: Precision,
        world: World,
    ) -> None:
        deepspeed = _import_deepspeed(world)
        # What these settings ask for, DeepSpeed says at this level.
        speaks = any(settings.get(name) for name in SPEAKING_SETTINGS)
        logging.getLogger("DeepSpeed").setLevel(logging.INFO if speaks else logging.WARNING)
        self._world = world
        self._precision = precision
        self._groups = deepspeed.utils.groups
        world.when_closed(lambda: _let_go_of_groups(deepspeed))
        self._stage: int = settings["zero_optimization"]["stage"]
        self._fp16: bool = settings["fp16"]["enabled"]
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        _allocate(model, DTYPES[precision])
        # Before the cut, which leaves parameters without the shapes that weight decay goes by.
        self._optimizer = adamw(parameter_groups(model, training), training) if training else None
        if self._stage == 3:
            _partition(deepspeed, model, settings, DTYPES[precision])
        self._engine, _, _, _ = deepspeed.initialize(
            model=model,
            optimizer=self._optimizer,
            config=dict(settings),
            dist_init_required=False,
        )
        _give_up_with_the_world(world.device)
        if self._optimizer is not None:
            create_adamw_state(self._optimizer, self._flat_masters())
            self._link_state()
            self._own_the_loss_scale()
        # DeepSpeed keeps no fp32 copy of what it does not train, and an export needs one.
        self._frozen = self._frozen_masters() if training else {}
        # It computes buffers in the low precision, too; positions and frequencies lose by that.
        for name, buffer in self._engine.module.named_buffers():
            buffer.data = buffers[name].to(world.device)

    @property
    def _training(self) -> torch.optim.AdamW:
        assert self._optimizer is not None, "opened to predict, not to train"
        return self._optimizer

    def _flat_masters(self) -> list[torch.Tensor]:
        """This rank's fp32 masters, flattened together: what AdamW really updates."""
        zero = self._engine.optimizer
        if self._stage == 3:
            return list(zero.fp32_partitioned_groups_flat)
        return list(zero.single_partition_of_fp32_groups)

    def _link_state(self) -> None:
        """Tell stages 1 and 2, whose fragments are made once, of the state just created."""
        if self._stage == 3:
            return
        groups = self._engine.optimizer.bit16_groups
        for params, flat in zip(groups, self._flat_masters(), strict=True):
            for parameter in params:
                if parameter._hp_mapping is not None:
                    state = self._training.state[flat]
                    parameter._hp_mapping.set_optim_state_fragment(flat, state)

    def _frozen_masters(self) -> dict[str, torch.Tensor]:
        """Room for fp32 values of frozen parameters: this rank's range under stage 3, else all."""
        frozen = {}
        for name, parameter in self._engine.module.named_parameters():
            if not parameter.requires_grad:
                _, numel = self._range(parameter)
                frozen[name] = torch.zeros(numel, dtype=torch.float32, device=self._world.device)
        return frozen

    def _own_the_loss_scale(self) -> None:
        """Let the loss scale change after a step and not in the midst of it.

        DeepSpeed doubles it before it divides the gradients by it, which halves the update of
        that step, and ends a run at the smallest scale with an error of its own.
        """
        scaler = self._engine.optimizer.loss_scaler
        scaler.raise_error_at_min_scale = False
        self._engine.optimizer._update_scale = lambda _: None
        self._scaler = scaler

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self._engine.train()
        with computed_in(self._precision, self._engine.module):
            logits: torch.Tensor = self._engine(**inputs).logits
        return logits

    def backward(self, loss_share: torch.Tensor, *, last: bool) -> None:
        # DeepSpeed averages over ranks, and over micro-batches unless told not to; the contract
        # wants the sum.
        # Where a step's micro-batches end is ours to say, for their number may vary.
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss_share * self._world.size, scale_wrt_gas=False)
        if not last:
            # Counts the micro-batch; the parameters move at the last one.
            self._engine.step()

    def step(self, learning_rate: float) -> PendingOutcome:
        set_learning_rate(self._training, learning_rate)
        loss_scale = self._loss_scale()
        self._engine.step()
        skipped = not self._engine.was_step_applied()
        norm = self._engine.get_global_grad_norm()
        if self._fp16:
            self._scaler.update_scale(skipped)
        norm = float("inf") if skipped else float(norm)
        return PendingOutcome(torch.tensor([norm, float(skipped), loss_scale]))

    @torch.no_grad()
    def predict(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self._engine.eval()
        with computed_in(self._precision, self._engine.module):
            logits: torch.Tensor = self._engine(**inputs).logits
        return logits

    def shards(self) -> Iterator[Shard]:
        pieces = self._stage3_shard if self._stage == 3 else self._replicated_shard
        for name, parameter in self._engine.module.named_parameters():
            yield pieces(name, parameter)

    def _stage3_shard(self, name: str, parameter: Any) -> Shard:
        offset, numel = self._range(parameter)
        shape = tuple(parameter.ds_shape)
        if self._optimizer is None:
            return Shard(name, shape, offset, numel, parameter.ds_tensor.data[:numel])
        if not parameter.requires_grad:
            return Shard(name, shape, offset, numel, self._frozen[name])
        zero = self._engine.optimizer
        group, start, _ = zero.grad_position[zero.get_param_id(parameter)]
        flat = zero.fp32_partitioned_groups_flat[group]
        state = self._training.state[flat]
        master, exp_avg, exp_avg_sq = (
            tensor.detach().narrow(0, start, numel)
            for tensor in (flat, state["exp_avg"], state["exp_avg_sq"])
        )
        return Shard(name, shape, offset, numel, master, exp_avg, exp_avg_sq)

    def _range(self, parameter: Any) -> tuple[int, int]:
        """Offset and number of the values of a parameter that this rank holds."""
        if self._stage < 3:
            return 0, parameter.numel()
        part = parameter.ds_tensor.ds_numel
        # The last ranks' partitions end in padding, or are nothing else.
        offset = min(self._world.rank * part, parameter.ds_numel)
        return offset, min(part, parameter.ds_numel - offset)

    def _replicated_shard(self, name: str, parameter: Any) -> Shard:
        shape = tuple(parameter.shape)
        if self._optimizer is None or not parameter.requires_grad:
            values = self._frozen[name] if self._optimizer else parameter.detach().view(-1)
            # Every rank holds the whole; the first one speaks for it.
            values = values if self._world.is_main else values[:0]
            return Shard(name, shape, 0, values.numel(), values)
        mapping = parameter._hp_mapping
        if mapping is None:
            nothing = torch.empty(0, dtype=torch.float32, device=parameter.device)
            return Shard(name, shape, 0, 0, nothing, nothing, nothing)
        address = mapping.lp_fragment_address
        moments = (mapping.get_optim_state_fragment(key) for key in ("exp_avg", "exp_avg_sq"))
        master = mapping.get_hp_fragment().detach()
        return Shard(name, shape, address.start, address.numel, master, *moments)

    def publish(self) -> None:
        if self._stage < 3:
            self._publish_replicated()
            return
        # A forward leaves parameters gathered or on their way: those below the persistence
        # threshold always, and without a backward also those that the backward would use again.
        # Release them all, or the next forward computes with their old values.
        self._engine.optimizer.empty_partition_cache()
        for shard, parameter in zip(self.shards(), self._engine.module.parameters(), strict=True):
            parameter.ds_tensor.data[: shard.numel].copy_(shard.master)
            # ZeRO++ copies the partition within the node again at the next gather.
            parameter.ds_secondary_tensor = None
        # DeepSpeed expects the small ones to be gathered between steps.
        if persistent := self._engine.optimizer.persistent_parameters:
            persistent[0].all_gather(persistent)

    def _publish_replicated(self) -> None:
        if self._optimizer is not None:
            # Copies this rank's masters into the low-precision groups, then all-gathers them.
            self._engine.optimizer.update_lp_params()
        for name, parameter in self._engine.module.named_parameters():
            if name in self._frozen:
                self._frozen[name] = self._world.broadcast(self._frozen[name])
                parameter.data.view(-1).copy_(self._frozen[name])
            elif self._optimizer is None:
                parameter.data.copy_(self._world.broadcast(parameter.data))

    def scalars(self) -> dict[str, float]:
        scalars = {"optimizer_step": optimizer_step(self._training)}
        if self._fp16:
            since = self._scaler.cur_iter - self._scaler.last_overflow_iter - 1
            scalars |= {"loss_scale": self._loss_scale(), "steps_since_overflow": float(since)}
        return scalars

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        set_optimizer_step(self._training, scalars["optimizer_step"])
        if self._fp16 and "loss_scale" in scalars:
            self._scaler.cur_scale = scalars["loss_scale"]
            self._scaler.last_overflow_iter = -1
            self._scaler.cur_iter = int(scalars["steps_since_overflow"])

    def _loss_scale(self) -> float:
        return float(self._scaler.cur_scale) if self._fp16 else 1.0

    def close(self) -> None:
        zero, parameters = self._engine.optimizer, list(self._engine.module.parameters())
        self._engine.destroy()
        self._engine.data_parallel_group = self._engine.seq_data_parallel_group = None
        # The ranks of a node are a global of DeepSpeed's, which refuses to name them twice.
        self._groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None
        # Under stage 3 DeepSpeed's hooks keep all of it for as long as the process lives, and the
        # next run in the process would have less room: what they keep is emptied.
        if zero is not None:
            vars(zero).clear()
        if self._optimizer is not None:
            self._optimizer.state.clear()
            self._optimizer.param_groups.clear()
        for parameter in parameters:
            vars(parameter).clear()
            parameter.data, parameter.grad = torch.empty(0), None


def _allocate(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give the model room on the host in the dtype DeepSpeed computes it in.

    The system gives the pages only when they are written to.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    allocate(model, torch.device("cpu"))


def _partition(
    deepspeed: Any, model: PreTrainedModel, settings: Mapping[str, Any], dtype: torch.dtype
) -> None:
    """Cut the parameters one by one, each giving back its room, before the engine sees them.

    The engine would send whole parameters around first, and so have all of them in memory.
    """
    # Joins the group that is there; elsewhere it would count one rank.
    deepspeed.init_distributed(dist_init_required=False, verbose=False)
    deepspeed.zero.Init(module=model, config_dict_or_path=dict(settings), dtype=dtype)
    # What was freed lies between what is kept, where the C library would leave it.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _give_up_with_the_world(device: torch.device) -> None:
    """Give the groups that DeepSpeed made the timeout of the default one.

    It makes them with torch's own, of half an hour, and has no setting for it.
    """
    groups = dist.distributed_c10d._world.pg_map
    timeout = dist.distributed_c10d._get_default_group()._get_backend(device).options._timeout
    for group in groups:
        if device.type in [kind.type for kind in group._device_types]:
            dist.distributed_c10d._set_pg_timeout(timeout, group)


def _let_go_of_groups(deepspeed: Any) -> None:
    """Have DeepSpeed forget the groups of a world that is about to be closed."""
    deepspeed.utils.groups._release_process_group_references()
    # Imported into a world, it has that world's group as the default of these.
    backend = type(deepspeed.comm.comm.cdb)
    for function in (backend.barrier, backend.monitored_barrier):
        function.__defaults__ = (None, *function.__defaults__[1:])


def _import_deepspeed(world: World) -> Any:
    """Import DeepSpeed for this device, quiet, with what it compiles at the first start found.

    Raises:
        LaunchError: it is not installed, or its CPU collectives cannot be compiled.
    """
    device = world.device
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    # DeepSpeed asks the environment even where there was no launcher.
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
    if device.type == "cpu" and (missing := missing_build_tools()):
        raise LaunchError(
            f"DeepSpeed compiles its CPU collectives at the first start and finds no "
            f"{' and no '.join(missing)}; install a C++ compiler (package g++) and `pip "
            f"install ninja`"
        )
    try:
        import deepspeed  # noqa: PLC0415
    except ImportError as error:
        raise LaunchError(
            f"strategy 'zero' needs deepspeed, which cannot be imported ({error}); "
            f"`pip install deepspeed`, or set strategy.kind to fsdp"
        ) from None
    if device.type == "cpu":
        _allow_fp16_without_fp16_units(deepspeed)
    return deepspeed


def _allow_fp16_without_fp16_units(deepspeed: Any) -> None:
    """Let DeepSpeed compute fp16 on any CPU.

    It refuses where oneDNN has no fp16 kernels; torch computes fp16 all the same, with the same
    rounding, only slowly.
    """
    accelerator = deepspeed.accelerator.get_accelerator()
    if accelerator.is_fp16_supported():
        return

    class PatientCpu(type(accelerator)):  # type: ignore[misc]
        def is_fp16_supported(self) -> bool:
            return True

    deepspeed.accelerator.set_accelerator(PatientCpu())
