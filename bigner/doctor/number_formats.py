"""The number formats of ``precision``: computed here and now, and how fast."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import torch

from bigner.config.schema import Precision
from bigner.doctor.findings import Finding, ok
from bigner.errors import LaunchError
from bigner.strategies.base import DTYPES
from bigner.strategies.precision import check_precision, slow_precision_warning

# Rows and columns of the matrices: so many that the product outweighs its call.
_SIZES = {"cpu": 384, "cuda": 4096}
_MOST_ROUNDS = 200
_SECONDS_SPENT = 0.2
# A format is worth a word where it is slower than this share of fp32's rate.
_SLOW = 0.9


def look(device: torch.device) -> Iterator[Finding]:
    """Every format on a device."""
    with _one_thread():
        yield from _each(device)


def _each(device: torch.device) -> Iterator[Finding]:
    fp32_seconds, refusal = computed("fp32", device)
    if fp32_seconds is None:
        yield number_format("fp32", refusal, None, None)
        return
    where = "one core" if device.type == "cpu" else "the first GPU"
    yield ok("fp32", f"{rate(device, fp32_seconds)} on {where}")
    for precision in get_args(Precision):
        if precision != "fp32":
            seconds, refusal = computed(precision, device)
            speed = None if seconds is None else fp32_seconds / seconds
            slowly = slow_precision_warning(precision, device)
            yield number_format(precision, refusal, speed, slowly)


def computed(precision: Precision, device: torch.device) -> tuple[float | None, str]:
    """Seconds of a product, or why there is none: a run in this format would fail alike."""
    try:
        check_precision(precision, device)
        return product_seconds(device, precision), ""
    except (LaunchError, RuntimeError) as error:
        # Of torch's own a GPU without room, which another run has taken.
        return None, str(error).partition("\n")[0]


def product_seconds(device: torch.device, precision: Precision) -> float:
    """The least time of a product of two square matrices."""
    size = _SIZES[device.type]
    first, second = torch.randn(2, size, size, device=device).to(DTYPES[precision])
    seconds: list[float] = []
    first @ second  # The first call is another: libraries are loaded in it.
    # The best of many, for what else runs on the machine only ever adds to it.
    while not seconds or (len(seconds) < _MOST_ROUNDS and sum(seconds) < _SECONDS_SPENT):
        _wait_for(device)
        start = time.perf_counter()
        first @ second
        _wait_for(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def rate(device: torch.device, seconds: float) -> str:
    """Operations a second of a product that took so long."""
    tflops = 2 * _SIZES[device.type] ** 3 / seconds / 1e12
    return f"{tflops:,.1f} TFLOP/s" if tflops >= 1 else f"{1000 * tflops:,.1f} GFLOP/s"


def number_format(
    precision: Precision, refusal: str, speed: float | None, slowly: str | None
) -> Finding:
    """One format.

    Args:
        precision: the format.
        refusal: why it cannot be computed; empty if it can.
        speed: how many times as fast as fp32 its matrix product was, if it can.
        slowly: why it is known to be slow, if it is.
    """
    if speed is None:
        costs = f"no precision {precision}"
        return Finding(precision, "missing", refusal, costs, "another precision, or other hardware")
    found = f"computed, {speed:.2g} x as fast as fp32"
    if slowly is None and speed >= _SLOW:
        return ok(precision, found)
    costs = slowly or "less memory, and no less time than fp32"
    return Finding(precision, "warning", found, costs, "the fastest of fp32, bf16 and fp16 here")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads that wait for one another on a busy machine would tell of that alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
