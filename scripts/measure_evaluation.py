"""What memory an evaluation takes that grows with the number of words.

A small model predicts and scores a corpus of so many words, the sample of ``bigner init`` again and
again. The corpus itself lies in memory-mapped files, so what counts is the memory of the process
that no file stands behind. Each size has a process of its own; takes some minutes.

    python scripts/measure_evaluation.py [--words 250000,1000000] [--confidences]
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import yaml

from bigner.commands.init import init_project
from bigner.config.load import load_config
from bigner.data.prepare import Prepared, prepare
from bigner.distributed import World
from bigner.evaluation.evaluator import ShardedEvaluator
from bigner.modeling import build_model, load_tokenizer
from bigner.packing import pack_attention
from bigner.strategies import Strategy, open_strategy

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SECONDS_BETWEEN_LOOKS = 0.005
WARM_UP_WORDS = 100_000
"""Scored first: buffers of torch and of the allocator are there from then on."""


def main() -> None:
    """Print a markdown table, a row for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--words", default="250000,500000,1000000")
    parser.add_argument("--confidences", action="store_true", help="as where predictions are kept")
    options = parser.parse_args()
    print("| words | windows | more at most while predicting, MB | held then | while scoring |")
    print("| --- " * 5 + "|")
    for words in map(int, options.words.split(",")):
        with multiprocessing.get_context("spawn").Pool(1) as process:
            found = process.apply(measure, (words, options.confidences))
        cells = (f"{found[name] / 1e6:.1f}" for name in ("predicting", "held", "scoring"))
        print(f"| {found['words']:,} | {found['windows']:,} | {' | '.join(cells)} |", flush=True)


def measure(num_words: int, confidences: bool) -> dict[str, int]:
    """Bytes above those held before: the most while predicting, after it, the most in scoring."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        small = _prepared(folder / "small", WARM_UP_WORDS)
        large = _prepared(folder / "large", num_words)
        warm_up, measured = (_evaluator(*one) for one in (small, large))
        _evaluate(*warm_up, confidences=confidences)
        found = _evaluate(*measured, confidences=confidences)
        sizes = large[1].splits["test"].sizes()
        return found | {"words": sizes["words"], "windows": sizes["windows"]}


def _evaluate(
    evaluator: ShardedEvaluator, strategy: Strategy, *, confidences: bool
) -> dict[str, int]:
    gc.collect()
    start = _anonymous_bytes()
    with Peak() as predicting:
        predictions = evaluator.predict(strategy, confidences=confidences)
    gc.collect()
    held = _anonymous_bytes() - start
    with Peak() as scoring:
        evaluator.score(predictions)
    return {
        "predicting": predicting.bytes - start,
        "held": held,
        "scoring": scoring.bytes - start,
    }


def _prepared(folder: Path, num_words: int) -> tuple[Any, Prepared]:
    init_project(folder)
    shape = folder / "model" / "config.json"
    shape.write_text(json.dumps(json.loads(shape.read_text()) | TINY))
    text = (folder / "data" / "train.conll").read_text(encoding="utf-8")
    once = sum(1 for line in text.splitlines() if line and not line.startswith("#"))
    (folder / "data" / "test.conll").write_text(text * -(-num_words // once), encoding="utf-8")
    run = yaml.safe_load((folder / "run_fsdp.yaml").read_text())
    run["strategy"], run["precision"] = {"kind": "single"}, "fp32"
    run["model"]["name_or_path"] = str(folder / "model")
    run["data"] |= {"test": str(folder / "data" / "test.conll"), "cache_dir": str(folder / "cache")}
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    config = load_config(folder / "run.yaml", [])
    return config, prepare(config.data, load_tokenizer(config.model), ["test"])


def _evaluator(config: Any, prepared: Prepared) -> tuple[ShardedEvaluator, Any]:
    model = build_model(config.model, prepared.heads.names_of_logits)
    packing = pack_attention(model, config.model.packing)
    world = World()
    strategy = open_strategy(config, world, model, training=False)
    for shard in strategy.shards():
        shard.master.normal_(std=0.1)
    strategy.publish()
    evaluator = ShardedEvaluator(
        prepared,
        prepared.splits["test"],
        prepared.heads,
        world,
        evaluation=config.evaluation,
        packing=packing,
    )
    return evaluator, strategy


class Peak:
    """The most memory without a file behind it, looked at every few milliseconds."""

    def __enter__(self) -> Peak:
        self.bytes = _anonymous_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            self.bytes = max(self.bytes, _anonymous_bytes())
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status does not tell RssAnon")


if __name__ == "__main__":
    main()
