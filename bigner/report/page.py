"""The page: one HTML file that needs nothing beside it and may ask for nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bigner.report.browser import browser_data, script_json
from bigner.report.charts import charts, reliability_chart
from bigner.report.confidence import SURE, calibration
from bigner.report.course import read_course
from bigner.report.matching import KINDS
from bigner.report.reading import ReportedRun, differing_fields
from bigner.report.scores import RESAMPLES, Estimate, TypeScores, score_types
from bigner.report.sentences import CHANGES, WrongSentence, wrong_sentences
from bigner.report.tallies import confusion, kinds_of_errors, sure_errors

_FILES = Path(__file__).parent
_NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def page(runs: Sequence[ReportedRun], warnings: Sequence[str] = ()) -> str:
    """The report of a run, or of two beside one another.

    Args:
        runs: one or two, that were asked the same.
        warnings: what is to be thought about first.

    Raises:
        UserError: a summary or a log holds something else than it should.
    """
    words = [run.words for run in runs]
    scores = score_types(words)
    confidences = [run.confidences for run in runs]
    wrong = wrong_sentences(runs[0].lines.asked, words, confidences)
    calibrations = [
        calibration(run.words, run.confidences) if run.confidences else None for run in runs
    ]
    first = runs[0]
    f1s = [of_run.f1.value for of_run in scores[0].runs]
    told = [run.warning(f1) for run, f1 in zip(runs, f1s, strict=True)]
    courses = [read_course(run.run.run_dir.path / "metrics.jsonl", run.head) for run in runs]
    names = [scored.name for scored in scores[1:]]
    data = browser_data(wrong, names, first.lines.path.name)
    return _render(
        split=first.split,
        head=first.head,
        letters="AB"[: len(runs)],
        paths=[str(run.run) for run in runs],
        warnings=[*warnings, *(warning for warning in told if warning)],
        facts=_facts(runs),
        differing=differing_fields(runs),
        tiles=_tiles(runs, scores[0]),
        types=scores,
        names=names,
        confusions=[confusion(wrong, scores[1:], i) for i in range(len(runs))],
        kinds=_kinds(wrong, len(runs)),
        changes=_changes(wrong),
        charts=charts(courses),
        calibrations=calibrations,
        reliability=reliability_chart(calibrations),
        sure=[sure_errors(wrong, i) for i in range(len(runs))],
        sure_from=SURE,
        knows=[run.confidences is not None for run in runs],
        unlogged=[str(run.run) for run, c in zip(runs, courses, strict=True) if c is None],
        wrong=len(wrong),
        sentences=first.words.sentences,
        resamples=RESAMPLES,
        data=Markup(script_json(data)),
    )


# ---------------------------------------------------------------- the run


def _facts(runs: Sequence[ReportedRun]) -> list[tuple[str, list[str]]]:
    """What there is to say of a run: names, and what each run has."""
    return [(name, [_or_none(fact, run) for run in runs]) for name, fact in _FACTS.items()]


def _or_none(fact: Callable[[ReportedRun], str | None], run: ReportedRun) -> str:
    return fact(run) or _NONE


def _model(run: ReportedRun) -> str:
    return f"{run.run.fields['model.name_or_path']}"


def _strategy(run: ReportedRun) -> str:
    fields = run.run.fields
    stage = fields.get("strategy.stage")
    kind = fields["strategy.kind"] + (f", stage {stage}" if stage is not None else "")
    size = fields.get("world_size")
    return f"{kind}, world size {size}" if size is not None else kind


def _steps(run: ReportedRun) -> str | None:
    steps, best = run.run.number("steps"), run.run.number("best_step")
    if steps is None:
        return None
    early = ", stopped early" if run.run.summary.get("stopped_early") is True else ""
    return f"{steps:,}{early}" + (f"; best weights at {best:,}" if best is not None else "")


def _skipped(run: ReportedRun) -> str | None:
    skipped = run.run.number("skipped_steps")
    return None if skipped is None else f"{skipped:,}"


def _rate(run: ReportedRun) -> str:
    return f"{run.run.fields['training.learning_rate']:g}"


def _finished(run: ReportedRun) -> str:
    """When the summary was written, by its file."""
    moment = datetime.fromtimestamp(run.run.run_dir.summary.stat().st_mtime, UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _versions(run: ReportedRun) -> str | None:
    found = run.run.summary.get("versions")
    if not isinstance(found, dict):
        return None
    return ", ".join(f"{name} {version}" for name, version in found.items())


_FACTS: dict[str, Callable[[ReportedRun], str | None]] = {
    "model": _model,
    "strategy": _strategy,
    "precision": lambda run: str(run.run.fields["precision"]),
    "learning rate": _rate,
    "seed": lambda run: str(run.run.seed),
    "steps": _steps,
    "skipped steps": _skipped,
    "finished": _finished,
    "versions": _versions,
}


# ---------------------------------------------------------------- numbers


@dataclass(frozen=True, slots=True)
class _Tile:
    """One score of each run."""

    label: str
    values: list[str]
    intervals: list[str]
    note: str = ""


def _tiles(runs: Sequence[ReportedRun], everything: TypeScores) -> list[_Tile]:
    found = [
        _tile("F1", [of_run.f1 for of_run in everything.runs], _difference(everything)),
        _tile("precision", [of_run.precision for of_run in everything.runs]),
        _tile("recall", [of_run.recall for of_run in everything.runs]),
    ]
    others = {
        "strict F1": [run.strict_f1() for run in runs],
        "accuracy": [run.score("accuracy") for run in runs],
        "loss": [run.score("loss") for run in runs],
    }
    found += [_Tile(name, list(map(_score, values)), []) for name, values in others.items()]
    return found


def _tile(label: str, estimates: Sequence[Estimate], note: str = "") -> _Tile:
    values = [_score(estimate.value) for estimate in estimates]
    return _Tile(label, values, list(map(_interval, estimates)), note)


def _difference(everything: TypeScores) -> str:
    found = everything.difference
    if found is None:
        return ""
    interval = f"{_signed(found.low)} to {_signed(found.high)}"
    return f"B {_MINUS} A {_signed(found.f1, 4)}\n{interval}\np = {found.p_value:.4f}"


def _kinds(wrong: Sequence[WrongSentence], runs: int) -> list[tuple[str, list[tuple[int, float]]]]:
    """Each kind of error, with its number and its share of the run's errors for each run."""
    counts = [kinds_of_errors(wrong, run) for run in range(runs)]
    return [
        (kind, [(of_run[kind], of_run[kind] / max(1, sum(of_run.values()))) for of_run in counts])
        for kind in KINDS
    ]


def _changes(wrong: Sequence[WrongSentence]) -> list[tuple[str, str, int]]:
    """What may have become of a sentence, what that means, and of how many."""
    found = [sentence.change for sentence in wrong]
    return [(change, meaning, found.count(change)) for change, meaning in CHANGES.items()]


def _score(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4f}"


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return _NONE
    return f"{estimate.low:.3f}{_NONE}{estimate.high:.3f}"


def _signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", _MINUS)


# ---------------------------------------------------------------- the file


def _render(**values: Any) -> str:
    script, style = ((_FILES / f"page.{kind}").read_text("utf-8") for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Charts and shaded cells have styles of their own, so styles may be inline; the script is the
    # one that is known by its hash, and nothing may be loaded or sent.
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        f"base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(_FILES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": _score,
        "interval": _interval,
        "signed": _signed,
        "svg": lambda chart: Markup(chart.svg),
    }
    return environment.get_template("page.html").render(
        **values, script=Markup(script), style=Markup(style), policy=policy
    )
