"""The script that measures real peaks, at a small shape on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.ranks.launch import environment
from tests.scripts import FOLDER


def test_a_small_shape_is_measured(tmp_path: Path) -> None:
    sizes = tmp_path / "config.json"
    # Wide enough for its memory to stand out of what the C library keeps.
    sizes.write_text(
        json.dumps(
            {
                "model_type": "xlm-roberta",
                "vocab_size": 60000,
                "hidden_size": 256,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "intermediate_size": 1024,
                "max_position_embeddings": 514,
                "type_vocab_size": 1,
            }
        )
    )
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [
            *(sys.executable, str(FOLDER / "measure_peaks.py"), "--models", str(sizes)),
            *("--strategies", "single,fsdp", "--ranks", "1,2", "--lengths", "128"),
            *("--checkpointing", "false", "--json", str(figures)),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(figures.read_text())
    assert [(row["strategy"], row["ranks"]) for row in rows] == [
        *(("single", 1), ("fsdp", 1), ("fsdp", 2)),
    ]
    assert done.stdout.count("| config.json |") == len(rows)
    # Resident memory is no allocator's count; of another order it is not.
    for row in rows:
        assert 0.3 < row["planned_by_measured"] < 1.5, row
    alone, spread = rows[1], rows[2]
    assert spread["measured_gib"] < alone["measured_gib"]
