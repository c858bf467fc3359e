"""Python and the packages: what is installed beside what bigner asks for."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from bigner.doctor.findings import Finding, ok

# No run can do without the others.
_ONLY_FOR = {
    "datasets": "data.format hub",
    "deepspeed": "strategy zero",
    "jinja2": "model cards",
    "ninja": "strategy zero on processors",
    "scikit-learn": "evaluation.scorer seqeval",
    "seqeval": "evaluation.scorer seqeval",
    "tensorboard": "tracking tensorboard",
}


def look() -> Iterator[Finding]:
    """Python, then each package in the order of their names."""
    try:
        ours = metadata.metadata("bigner")
        asked_for = metadata.requires("bigner") or []
    except metadata.PackageNotFoundError:
        yield not_installed()
        return
    yield python(platform.python_version(), ours["Requires-Python"] or "")
    for requirement in required(asked_for):
        yield package(requirement, installed(requirement.name))


def not_installed() -> Finding:
    """bigner's files are there, and what they ask for is not on record."""
    return Finding(
        "bigner",
        "warning",
        "not installed",
        "the versions of packages cannot be checked",
        "pip install -e . in bigner's folder",
    )


def python(version: str, wanted: str) -> Finding:
    """The interpreter."""
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return ok("python", version)
    return Finding(
        "python",
        "missing",
        f"{version}, and bigner asks for {wanted}",
        "bigner does not run",
        f"an environment of Python {wanted}",
        needed=True,
    )


def required(asked_for: list[str]) -> list[Requirement]:
    """The packages that are asked for on this machine, without extras."""
    found = []
    for text in asked_for:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.append(requirement)
    return sorted(found, key=lambda requirement: requirement.name)


def installed(name: str) -> str | None:
    """The version of a package; None if it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package(requirement: Requirement, version: str | None) -> Finding:
    """One package."""
    name = requirement.name
    purpose = _ONLY_FOR.get(name)
    remedy = f"pip install '{name}{requirement.specifier}'"
    if version is None:
        return Finding(
            name,
            "missing",
            f"not installed; bigner asks for {requirement.specifier}",
            f"no {purpose}" if purpose else "no run",
            remedy,
            needed=purpose is None,
        )
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(
            name,
            "warning",
            f"{version}, and bigner asks for {requirement.specifier}",
            f"{purpose or 'runs'} may fail: nothing was tried with this version",
            remedy,
        )
    return ok(name, version)
