"""What the choices of the guide come to on real data: text units, losses, decoding.

Small encoders trained from scratch on the Slovak and Hungarian corpora, several seeds each, every
other setting alike (documents have fewer windows in a batch, of about as many words): what a
sentence, a sentence with context and a whole document give, and what weighting the loss against the
many O does. The absolute scores are those of small encoders without pretraining; the differences
are the point. A run that is done is not run again, so the script can be stopped and started anew.

    python scripts/measure_choices.py FOLDER [--seeds 1,2,3] [--corpora slovak,hungarian]
        [--choices sentence,context] [--processes 2]
    bigner compare FOLDER/slovak --baseline FOLDER/slovak/sentence

Needs the corpora that $BIGNER_TEST_DATA names (default ../shared/data). At the end the models of
plain sentences are scored again with decoding under IOB2.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from pretrained import data_of

from bigner.config.schema import DataConfig
from bigner.data.formats import read_sentences
from bigner.sample.tokenizer import save_tokenizer, train_tokenizer

CORPUS_NAMES = ("slovak", "hungarian")
MODEL = {
    "architectures": ["XLMRobertaForTokenClassification"],
    "model_type": "xlm-roberta",
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 258,
    "type_vocab_size": 1,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
# A document's window holds about as many words as eight sentences.
CHOICES: dict[str, list[str]] = {
    "sentence": [],
    "context": ["data.context=16", "training.micro_batch_size=8"],
    "document": [
        "data.unit=document",
        "training.global_batch_size=4",
        "training.micro_batch_size=4",
    ],
    "o_half": ["loss.class_weights={O: 0.5}"],
    "o_fifth": ["loss.class_weights={O: 0.2}"],
    "inverse_frequency": ["loss.class_weights=inverse_frequency"],
    "effective_number": ["loss.class_weights=effective_number"],
    "focal": ["loss.focal_gamma=2.0"],
    "smoothing": ["loss.label_smoothing=0.1"],
    # Plain sentences again, with windows of similar length in a batch.
    "pools_of_32": ["training.pool_batches=32"],
    "pools_of_4": ["training.pool_batches=4"],
}
BASELINE = "sentence"


def main() -> None:
    """Train what is not trained yet, and score the plain models under both ways of decoding."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--corpora", default=",".join(CORPUS_NAMES))
    parser.add_argument("--choices", default=",".join(CHOICES))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    folder, corpora = arguments.folder, arguments.corpora.split(",")
    run_files = {corpus: _project(folder / corpus, corpus) for corpus in corpora}
    seeds, choices = arguments.seeds.split(","), arguments.choices.split(",")
    grid = [(c, choice, seed) for seed in seeds for c in corpora for choice in choices]
    with ThreadPoolExecutor(arguments.processes) as pool:
        for name in pool.map(lambda one: _train(folder, run_files[one[0]], *one), grid):
            print(name, flush=True)
    if BASELINE not in choices:
        return
    for corpus in corpora:
        for seed in seeds:
            for decoding in ("argmax", "iob2"):
                scores = _evaluate(folder / corpus / BASELINE / f"seed-{seed}", decoding)
                print(
                    f"{corpus}, seed {seed}, {decoding}: F1 {scores['f1']:.4f}, strict "
                    f"{scores['strict']['f1']:.4f}, {scores['words_per_second']:,.0f} words/s"
                )


def _train(folder: Path, run_file: Path, corpus: str, choice: str, seed: str) -> str:
    run_dir = folder / corpus / choice / f"seed-{seed}"
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    named = [f"run_dir={run_dir}", f"seed={seed}", *CHOICES[choice]]
    with run_dir.with_suffix(".log").open("w") as log:
        _bigner(["train", str(run_file), *named], stdout=log, stderr=log)
    return str(run_dir)


def _evaluate(run_dir: Path, decoding: str) -> Any:
    command = ["evaluate", str(run_dir / "config.yaml"), f"evaluation.decoding={decoding}"]
    return json.loads(_bigner([*command, "--json"], stdout=subprocess.PIPE))


def _bigner(arguments: list[str], **streams: Any) -> str:
    """Run one command in a process of its own, on one core; returns its output."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-m", "bigner", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        text=True,
        check=True,
        **streams,
    )
    return done.stdout


def _project(folder: Path, corpus: str) -> Path:
    """A model with a tokenizer of the corpus' own training words, and the run file."""
    run_file = folder / "run.yaml"
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    data = data_of(corpus)
    sentences = read_sentences(DataConfig.model_validate(data), "train")
    tokenizer = train_tokenizer(word for sentence in sentences for word in sentence.words)
    save_tokenizer(tokenizer, model)
    config = MODEL | {"vocab_size": tokenizer.get_vocab_size()}
    (model / "config.json").write_text(json.dumps(config, indent=2))
    run = {
        "run_dir": str(folder / "run"),
        "model": {"name_or_path": str(model.resolve()), "training_type": "from_scratch"},
        "data": {
            **data,
            "max_length": 256,
            "stride": 32,
            "cache_dir": str((folder / "cache").resolve()),
        },
        "training": {
            "epochs": 3,
            "global_batch_size": 32,
            "micro_batch_size": 32,
            "learning_rate": 1e-3,
            "adam_beta2": 0.98,
        },
        "evaluation": {"batch_size": 64},
    }
    run_file.write_text(yaml.safe_dump(run, sort_keys=False))
    return run_file


if __name__ == "__main__":
    main()
