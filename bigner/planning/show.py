"""A plan for people: tables and a plot on standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bigner.planning.moments import PARTS, Part

_BAR_WIDTH = 24
_WIDTH = 100


def show(plan: dict[str, Any]) -> None:
    """Print a plan."""
    # What is not a terminal has no width of its own.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print("\n".join(_heading(plan)), markup=False)
    console.print(_memory_table(plan))
    console.print("\n".join(_verdict(plan)), markup=False)
    if plan["remedies"]:
        console.print(_remedy_table(plan))
    if "simulated" in plan:
        console.print("\n".join(_simulated(plan)), markup=False)
    console.print("\n".join(_traffic(plan)), markup=False)
    console.print(_scaling_table(plan))
    console.print("\n".join(_assumed(plan)), markup=False)


def _heading(plan: dict[str, Any]) -> Iterator[str]:
    cluster, model, step = plan["cluster"], plan["model"], plan["step"]
    nodes = f"{cluster['nodes']} x " if cluster["nodes"] > 1 else ""
    frozen = model["parameters"] - model["trained"]
    yield (
        f"{plan['strategy']['kind']}, {plan['precision']}, on {nodes}{cluster['gpus_per_node']} "
        f"{cluster['gpu']} of {cluster['memory_gib']:g} GiB"
    )
    yield (
        f"{model['parameters']:,} parameters, {model['embedding_table']:,} of them embeddings of "
        f"pieces{f', {frozen:,} frozen' if frozen else ''}; {model['labels']} labels"
    )
    if model["rows_not_known"]:
        yield "All rows of the embedding table are counted; --embedding-rows says how many are used"
    micro_batches = step["accumulation"]
    yield (
        f"{step['pieces_at_once']:,} pieces at once on each rank in windows of {step['window']}, "
        f"{micro_batches} micro-batch{'es' if micro_batches > 1 else ''} a step, gradient "
        f"checkpointing {str(step['gradient_checkpointing']).lower()}"
    )
    yield ""


def _memory_table(plan: dict[str, Any]) -> Table:
    phases = plan["memory"]["phases"]
    found = [moment["parts_gib"] for moment in phases.values()]
    parts = [part for part in PARTS if any(part in of_phase for of_phase in found)]
    table = _table("GiB on the rank that holds the most, at the fullest moment of each phase")
    table.add_column("", no_wrap=True)
    for part in parts:
        table.add_column(_COLUMNS[part], justify="right")
    table.add_column("all", justify="right")
    for phase, moment in phases.items():
        sizes = (moment["parts_gib"].get(part) for part in parts)
        table.add_row(
            f"{phase}: {moment['at']}",
            *("" if size is None else f"{size:,.2f}" for size in sizes),
            f"{moment['total_gib']:,.2f}",
            style="bold" if phase == plan["memory"]["peak_phase"] else None,
        )
    return table


_COLUMNS: dict[Part, str] = {
    "masters": "masters",
    "optimizer state": "moments",
    "low-precision weights": "weights",
    "gathered weights": "gathered",
    "gradients": "grads",
    "communication": "sending",
    "activations": "activations",
}


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )


def _verdict(plan: dict[str, Any]) -> Iterator[str]:
    memory, cluster = plan["memory"], plan["cluster"]
    says = "It fits" if memory["fits"] else "It does not fit"
    yield (
        f"{says}: {memory['peak_gib']:,.2f} GiB at the peak ({memory['peak_phase']}: "
        f"{memory['peak_at']}) of {cluster['memory_gib'] - memory['reserved_gib']:.1f}, "
        f"{memory['reserved_gib']:g} being left for CUDA, libraries and gaps."
    )
    largest, fewest = memory["largest_micro_batch"], memory["fewest_gpus"]
    if largest is not None:
        yield f"The largest micro-batch that fits has {largest:,} windows of full length."
    else:
        yield "Not even a micro-batch of one window fits."
    if fewest is not None:
        yield f"As it is, it fits on {fewest} such GPU{_plural(fewest)} or more.{_why(memory)}"
    if "deepspeed_states_gib" in memory:
        yield (
            f"DeepSpeed's own estimator gives {memory['deepspeed_states_gib']:,.2f} GiB for model "
            f"states, without activations and buffers."
        )
    host = ", ".join(f"{size:,.2f} for {what}" for what, size in memory["host_gib"].items())
    yield f"Host memory of each rank, GiB: {host}."
    yield ""


def _plural(number: int) -> str:
    return "s" if number > 1 else ""


def _why(memory: dict[str, Any]) -> str:
    """What is in the way of fewer GPUs."""
    half = memory["on_half_of_them"]
    if half is None:
        return ""
    parts = ", ".join(f"{size:,.1f} {part}" for part, size in half["largest_parts_gib"].items())
    return (
        f" On {half['gpus']} it would take {half['peak_gib']:,.1f} GiB in the "
        f"{half['peak_phase']}: {parts}."
    )


def _remedy_table(plan: dict[str, Any]) -> Table:
    table = _table("What to change, each on top of those before it")
    table.add_column("change")
    table.add_column("costs")
    table.add_column("peak GiB", justify="right")
    table.add_column("")
    for one in plan["remedies"]:
        says = "fits" if one["fits"] else "does not fit"
        table.add_row(one["change"], one["cost"], f"{one['peak_gib']:,.2f}", says)
    return table


def _simulated(plan: dict[str, Any]) -> Iterator[str]:
    traced = plan["simulated"]
    yield (
        f"Traced on fake tensors ({traced['seconds']:.0f} s): {traced['peak_gib']:,.2f} GiB at the "
        f"peak of a step; the formulas say {traced['formula_gib']:,.2f} "
        f"({traced['formula_gib'] / traced['peak_gib'] - 1:+.1%})."
    )
    parts = ", ".join(f"{size:,.2f} {name}" for name, size in traced["parts_gib"].items())
    yield f"At the traced peak, GiB: {parts}."
    yield ""


def _traffic(plan: dict[str, Any]) -> Iterator[str]:
    moved, time = plan["traffic_gb"], plan["time"]
    parts = {
        "gathered in the forward": moved["gathered_forward"],
        "again for the backward"
        if plan["strategy"].get("stage", 3) == 3
        else "after the update": moved["gathered_backward"],
        "reduced": moved["reduced"],
        "reduced between copies": moved["replicated"],
    }
    told = ", ".join(f"{size:,.2f} {what}" for what, size in parts.items() if size)
    yield f"Each rank sends, GB a step: {told or 'nothing'}."
    yield (
        f"A step takes {time['step_seconds']:g} s: {time['compute_seconds']:g} of computing "
        f"({time['teraflops']:,g} TFLOP), {time['link_seconds']:g} of moving beside it, "
        f"{time['update_seconds']:g} of updating; {time['tokens_per_second']:,} pieces a second."
    )
    yield ""


def _scaling_table(plan: dict[str, Any]) -> Table:
    table = _table("The same work on each of more GPUs (the global batch grows with them)")
    for name in ("GPUs", "peak GiB", "largest micro-batch", "pieces/s"):
        table.add_column(name, justify="right")
    table.add_column("time spent computing", no_wrap=True)
    table.add_column("bound by")
    for row in plan["scaling"]:
        bar = "█" * round(_BAR_WIDTH * row["computing_share"])
        largest = row["largest_micro_batch"]
        table.add_row(
            f"{row['gpus']:,}",
            f"{row['peak_gib']:,.2f}",
            "-" if largest is None else f"{largest:,}",
            f"{row['tokens_per_second']:,}",
            f"{row['computing_share']:>4.0%} {bar}",
            row["bound_by"],
        )
    return table


def _assumed(plan: dict[str, Any]) -> Iterator[str]:
    assumed, cluster = plan["assumed"], plan["cluster"]
    yield (
        f"Assumed: {assumed['share_of_dense_rate']:.0%} of the card's dense rate; "
        f"{assumed['share_of_link_rate']:.0%} of {cluster['gbps_within_node']:g} GB/s one way "
        f"within a node and {cluster['gbps_between_nodes']:g} between nodes, for each GPU; "
        f"{assumed['hop_seconds_within_node'] * 1e6:g} and "
        f"{assumed['hop_seconds_between_nodes'] * 1e6:g} us from one GPU to the next; windows of "
        f"full length."
    )
