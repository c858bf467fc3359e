"""What the ranks of a launch do for question answering."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bigner.config.schema import ModelConfig
from bigner.distributed import World
from bigner.modeling import load_tokenizer
from tests.question_answering import characters_tokenizer
from tests.scripts import script


def planted_runs(
    world: World, *, data: str, tokenizer: str, runs: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Answer every question of a file from planted scores, once for each set of options.

    Args:
        world: all ranks.
        data: a file in the format of SQuAD v1.1.
        tokenizer: its folder; ``characters`` for one of single characters.
        runs: ``plant``, ``every``, ``batch_size``, ``max_length``, ``stride`` and ``max_answer``.

    Returns:
        for each run the scores, what was told of the planted spans, how many windows there were,
        and a hash of all answers.
    """
    squad, squad_eval = script("squad"), script("squad_eval")
    if tokenizer == "characters":
        pieces = characters_tokenizer()
    else:
        pieces = load_tokenizer(ModelConfig(name_or_path=tokenizer), split_words=False)
    questions = squad.read_squad(Path(data))
    cut: dict[tuple[int, int], Any] = {}
    results = {}
    for name, run in runs.items():
        size = run["max_length"], run["stride"]
        if size not in cut:
            cut[size] = squad.cut_windows(questions, pieces, max_length=size[0], stride=size[1])
        windows = cut[size]
        spans = squad_eval.spans_to_plant(questions, run["plant"], run["every"])
        planted = squad_eval.Planted(questions, windows, spans, max_answer=run["max_answer"])
        answers = squad.predict_answers(
            questions,
            windows,
            planted,
            squad.Collator(windows, pieces, world.device),
            world,
            batch_size=run["batch_size"],
            max_answer=run["max_answer"],
        )
        results[name] = {
            "scores": asdict(squad.score(questions, answers)),
            "told": planted.told(answers),
            "windows": len(windows),
            "answers": hashlib.sha256(json.dumps(answers).encode()).hexdigest(),
        }
    return results
