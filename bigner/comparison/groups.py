"""Runs that differ in nothing but their seed, as groups with names that say how they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bigner.comparison.runs import FinishedRun

_LONGEST_VALUE = 32


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one config with different seeds."""

    name: str
    """The fields in which it differs from the others, with its values; a line each."""
    fields: dict[str, Any]
    """The same as values; empty for the only group."""
    runs: tuple[FinishedRun, ...]

    def repeated_seeds(self) -> list[str]:
        """A sentence for each run that repeats one with the same seed."""
        first: dict[int, FinishedRun] = {}
        told = []
        for run in self.runs:
            if (earlier := first.setdefault(run.seed, run)) is not run:
                told.append(
                    f"{earlier} and {run} are one config with one seed ({run.seed}): no two "
                    f"samples, so the standard deviation is too small; leave one of them out"
                )
        return told


def group(runs: Sequence[FinishedRun]) -> list[Group]:
    """Put runs together that are one config, groups and runs in the order of the runs."""
    by_fields: dict[str, list[FinishedRun]] = {}
    for run in runs:
        by_fields.setdefault(json.dumps(run.fields, sort_keys=True), []).append(run)
    groups = list(by_fields.values())
    if len(groups) == 1:
        return [Group(_folder_of(groups[0]), {}, tuple(groups[0]))]
    shown = _differing([members[0].fields for members in groups])
    names = _distinct(["\n".join(map(_show, fields.items())) for fields in shown])
    return [
        Group(name, fields, tuple(members))
        for name, fields, members in zip(names, shown, groups, strict=True)
    ]


def _folder_of(runs: list[FinishedRun]) -> str:
    """Where the runs of the only group lie."""
    path = runs[0].run_dir.path
    together = len(runs) > 1 and all(run.run_dir.path.parent == path.parent for run in runs)
    return str(path.parent if together else path)


def _differing(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each group the fields that not all groups have the same value of."""
    names = list(dict.fromkeys(name for fields in groups for name in fields))

    def values(name: str) -> list[str]:
        return [json.dumps(fields[name], sort_keys=True) for fields in groups if name in fields]

    # What one strategy has and another has not goes without saying: its kind is said.
    telling = [name for name in names if len(set(values(name))) > 1]
    shown = [{name: fields[name] for name in telling if name in fields} for fields in groups]
    if len({json.dumps(fields, sort_keys=True) for fields in shown}) == len(groups):
        return shown
    # A section that is there in one and absent in another may be all the difference there is.
    telling = [
        name for name in names if len(set(values(name))) > 1 or len(values(name)) < len(groups)
    ]
    return [{name: fields[name] for name in telling if name in fields} for fields in groups]


def _show(field: tuple[str, Any]) -> str:
    name, value = field
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > _LONGEST_VALUE:
        # Of a path the end says most.
        text = f"...{text[3 - _LONGEST_VALUE :]}"
    return f"{name}={text}"


def _distinct(names: list[str]) -> list[str]:
    """The names, numbered where what was cut off is all the difference."""
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
