"""Python's garbage collector, kept from what it would only slow down.

Whenever enough objects were made it goes through all there are, to find those that hold each other
and nobody else. Where a million are made that are all kept - the modules of torch and transformers,
the sentences of a corpus - that is a third of the time, and it finds nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Around the making of many objects that are kept, or that hold no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def loading() -> Iterator[None]:
    """Around the imports of a command; later the collector passes by all there is by then."""
    with paused():
        yield
    gc.freeze()
