"""Memory, traffic and time of a run on GPUs that are not at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigner.config.checks import Where, batch_problems, strategy_problems
from bigner.config.schema import RunConfig
from bigner.errors import ConfigError, Problem, UserError
from bigner.planning.hardware import Links, gpu_named, link_gbps
from bigner.planning.job import job_of
from bigner.planning.model_config import find_shape
from bigner.planning.report import Cluster, report


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the command line says beside the run file."""

    gpus: int
    nodes: int
    gpu: str
    memory_gib: float | None
    link: str | None
    network_gbps: float
    model_config: Path | None
    embedding_rows: int | None
    simulate: bool

    def cluster(self) -> Cluster:
        """The machines that are meant.

        Raises:
            UserError: a card or link that is not known here.
        """
        gpu = gpu_named(self.gpu)
        within = link_gbps(self.link, gpu)
        return Cluster(
            gpu=gpu,
            memory_gib=self.memory_gib or gpu.memory_gib,
            gpus_per_node=self.gpus,
            nodes=self.nodes,
            links=Links(within, self.network_gbps, self.gpus),
        )


def plan(config: RunConfig, options: PlanOptions, where: Where) -> dict[str, Any]:
    """What a run would take on a cluster.

    Raises:
        ConfigError: the run does not fit so many processes, or its ds_configs file is wrong.
        ModelError: its model's sizes cannot be found.
        UserError: an option names nothing that is known here.
    """
    cluster = options.cluster()
    in_use = config.model.embedding_rows == "used"
    if options.embedding_rows is not None and not in_use:
        raise UserError("--embedding-rows is for model.embedding_rows used, and it is all")
    if problems := _problems(config, cluster, where):
        raise ConfigError(problems)
    shape = find_shape(
        config,
        model_config=options.model_config,
        rows=options.embedding_rows,
        ask_hub=True,
    )
    job = job_of(config, shape, cluster.ranks)
    planned = report(job, cluster)
    # Which they are only the data can tell.
    planned["model"]["rows_not_known"] = in_use and options.embedding_rows is None
    if options.simulate:
        if not config.strategy.can_be_traced:
            raise UserError(
                f"--simulate traces strategy fsdp, and strategy.kind is {config.strategy.kind!r}; "
                f"for that the formulas have to do"
            )
        from bigner.planning.simulate import simulate  # noqa: PLC0415

        planned["simulated"] = simulate(job)
    return planned


def _problems(config: RunConfig, cluster: Cluster, where: Where) -> list[Problem]:
    problems = [
        *strategy_problems(config, cluster.ranks, where),
        *batch_problems(config, cluster.ranks, where),
    ]
    if config.precision == "bf16" and not cluster.gpu.has_bf16:
        message = f"{cluster.gpu.name} computes no bf16; set it to fp16, or take another --gpu"
        problems.append(Problem(where("precision"), "precision", message))
    return problems
