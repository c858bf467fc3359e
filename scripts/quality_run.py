"""One run of ``bench_quality.py``: one trainer, its last and its best weights scored.

    python scripts/quality_run.py bigner|trainer RUN.yaml FOLDER [field=value ...]

The run file gives ``training.max_steps`` and a number of steps in ``evaluation.every``. Whoever
trains, ``bigner evaluate``'s scorer scores both sets of weights, under each decoding. FOLDER gets
the predictions on test, ``last-argmax.tsv`` and so on, and at the end ``result.json``:

* ``curve``: of each evaluation on validation its step, F1, and the seconds of training until then,
  those of evaluation not counted
* ``best_step``, and ``test``: the scores of ``last-argmax``, ``last-iob2`` and so on
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from peer import build, training_arguments
from transformers import TrainerCallback

from bigner.commands.evaluate import evaluate
from bigner.commands.export import export
from bigner.commands.train import train
from bigner.config.load import load_config
from bigner.config.schema import RunConfig
from bigner.data.batches import TrainingPlan
from bigner.data.prepare import prepare
from bigner.distributed import World
from bigner.modeling import load_tokenizer
from bigner.run_dir import RunDir

WEIGHTS = ("last", "best")
DECODINGS = ("argmax", "iob2")


def main() -> None:
    """Train, score, and leave the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contestant", choices=["bigner", "trainer"])
    parser.add_argument("run_file", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="FIELD=VALUE")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = load_config(options.run_file, [*options.overrides, f"run_dir={folder / 'run'}"])
    by = _by_bigner if options.contestant == "bigner" else _by_trainer
    result, models = by(config, folder)
    result["test"] = {
        f"{which}-{decoding}": evaluate(
            RunConfig.model_validate(_with(config, evaluation={"decoding": decoding})),
            World(),
            model_dir=models[which],
            split="test",
            predictions_file=folder / f"{which}-{decoding}.tsv",
        )
        for which in WEIGHTS
        for decoding in DECODINGS
    }
    result["overrides"] = options.overrides
    for path in (folder / "run", *models.values()):
        shutil.rmtree(path, ignore_errors=True)
    (folder / "result.json").write_text(json.dumps(result, indent=2))
    # The Trainer may have left threads behind that the interpreter's end does not survive.
    os._exit(0)


def _by_bigner(config: RunConfig, folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    steps = config.training.max_steps
    last_only = {"every_steps": steps, "keep_last": 1}
    config = RunConfig.model_validate(_with(config, checkpoint=last_only))
    summary = train(config, World())
    run_dir = RunDir(config.run_dir)
    export(run_dir.checkpoints / f"step-{steps:08}", folder / "last-model", samples=0)
    result = {"curve": _curve(config, run_dir.path), "best_step": summary["best_step"]}
    return result, {"last": folder / "last-model", "best": Path(summary["model"])}


def _with(config: RunConfig, **sections: dict[str, Any]) -> dict[str, Any]:
    """The config's content with some fields of some sections changed."""
    content = config.model_dump(mode="json", exclude_unset=True)
    return content | {name: content.get(name, {}) | new for name, new in sections.items()}


def _curve(config: RunConfig, run_dir: Path) -> list[dict[str, float]]:
    """F1 over seconds, from the speed that is logged between evaluations."""
    prepared = prepare(config.data, load_tokenizer(config.model), config.data.splits())
    lengths = prepared.splits["train"].column("length")
    plan = TrainingPlan(lengths, [], training=config.training, seed=config.seed)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    speeds = {line["step"]: line["tokens_per_second"] for line in lines if "split" not in line}
    curve, seconds, before = [], 0.0, 0
    for line in lines:
        if line.get("split") == "validation":
            steps = plan.steps(before, line["step"])
            seconds += sum(step.num_tokens for _, step in steps) / speeds[line["step"]]
            before = line["step"]
            curve.append({"step": before, "f1": line["f1"], "seconds": round(seconds, 2)})
    return curve


def _by_trainer(config: RunConfig, folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    arguments = training_arguments(config, on_cpu=True, best=False, more={})
    trainer = build(config, arguments, best=False)
    models = {which: folder / f"{which}-model" for which in WEIGHTS}
    keeper = _BestKept(trainer, models["best"])
    trainer.add_callback(keeper)
    trainer.train()
    trainer.save_model(str(models["last"]))
    return {"curve": keeper.curve, "best_step": keeper.best_step}, models


class _BestKept(TrainerCallback):
    """Keeps the weights of the best evaluation, and the seconds of training until each."""

    def __init__(self, trainer: Any, folder: Path) -> None:
        self._trainer = trainer
        self._folder = folder
        self._seconds = self._since = 0.0
        self.curve: list[dict[str, float]] = []
        self.best_step = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step % args.eval_steps == 0 or state.global_step == state.max_steps:
            self._seconds += time.perf_counter() - self._since

    def on_evaluate(
        self, _: Any, state: Any, *__: Any, metrics: dict[str, float], **___: Any
    ) -> None:
        f1 = metrics["eval_f1"]
        if f1 > max((point["f1"] for point in self.curve), default=-1.0):
            self.best_step = state.global_step
            self._trainer.save_model(str(self._folder))
        seconds = round(self._seconds, 2)
        self.curve.append({"step": state.global_step, "f1": f1, "seconds": seconds})
        self._since = time.perf_counter()


if __name__ == "__main__":
    main()
