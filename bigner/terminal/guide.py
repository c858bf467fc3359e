"""The order in which commands are used, and for each command lines to begin with.

``bigner --help`` groups commands by it, ``bigner COMMAND --help`` ends with its examples, and
``docs/commands.md`` has both. The examples are for a project of ``bigner init``, where a test runs
them in this order; what is shown after a ``#`` is for the reader.
"""

from __future__ import annotations

from types import MappingProxyType

BEFORE = "Before a run"
RUN = "Run"
LOOK = "Look"
USE = "Use and share"

GROUPS = MappingProxyType(
    {
        BEFORE: ("init", "doctor", "validate", "plan", "lint", "schema"),
        RUN: ("train", "search", "evaluate", "export"),
        LOOK: ("compare", "report"),
        USE: ("predict", "onnx", "card", "push"),
    }
)

EXAMPLES = MappingProxyType(
    {
        "init": ("bigner init project", "cd project"),
        "doctor": ("bigner doctor",),
        "validate": (
            "bigner validate run_fsdp.yaml",
            "bigner validate run_zero3.yaml training.learning_rate=1e-3 --world-size 2",
        ),
        "plan": (
            "bigner plan run_fsdp.yaml",
            "bigner plan run_zero3.yaml --gpus 2 --gpu a100-80gb",
        ),
        "lint": ("bigner lint run_fsdp.yaml data.max_length=64",),
        "schema": ("bigner schema > run.schema.json",),
        "train": (
            "bigner train run_fsdp.yaml precision=bf16",
            "torchrun --nproc-per-node 2 -m bigner train run_zero3.yaml precision=bf16",
            "bigner train run_fsdp.yaml precision=bf16 run_dir=runs/seeds --seeds 1,2",
        ),
        "search": (
            "bigner search run_fsdp.yaml space.yaml --trials 4 run_dir=found precision=bf16",
        ),
        "evaluate": ("bigner evaluate run_fsdp.yaml precision=fp32 --split validation",),
        "export": ("bigner export runs/fsdp/checkpoints/step-* exported",),
        "compare": (
            "bigner compare runs/seeds",
            "bigner compare runs/fsdp runs/seeds --output table.md",
        ),
        "report": (
            "bigner report runs/fsdp",
            "bigner report runs/fsdp runs/seeds/seed-1 --output both.html",
        ),
        "predict": (
            "echo 'Olivia Bennett called.' | bigner predict --model runs/fsdp/model - -",
            "bigner predict --model runs/fsdp/model data/test.conll out.html --format html",
        ),
        "onnx": ("bigner onnx runs/fsdp tagger-onnx",),
        "card": ("bigner card runs/fsdp",),
        "push": ("HF_TOKEN=... bigner push runs/fsdp owner/name --private",),
    }
)

FIRST_RUN = (
    "bigner init project",
    "cd project",
    "bigner train run_fsdp.yaml precision=bf16",
    "bigner report runs/fsdp",
    "echo 'Olivia Bennett called.' | bigner predict --model runs/fsdp/model - -",
)

EXIT_CODES = (
    "Exit codes: 0 done, 1 the run failed, 2 the input is wrong; 143 stopped by SIGTERM, 130 by "
    "Ctrl-C, 138 by SIGUSR1, each after saving."
)


def group_of(command: str) -> str:
    """The heading that a command stands under.

    Raises:
        KeyError: it stands under none.
    """
    for heading, commands in GROUPS.items():
        if command in commands:
            return heading
    raise KeyError(command)
