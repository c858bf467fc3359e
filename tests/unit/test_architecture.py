"""The import rules of the house, held by walking the syntax trees of all its modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bigner

PACKAGE = Path(bigner.__file__).parent

# From the ground up: a module imports from its own layer and from those before it.
LAYERS = (
    ("errors",),
    ("config",),
    ("build_tools", "collector", "distributed", "log", "memory", "relay", "stop"),
    ("dropout", "modeling", "packing", "optim", "loss", "data", "sample", "tensor_files"),
    ("strategies",),
    (
        *("evaluation", "checkpoint", "export", "prediction", "predictions", "run_dir", "table"),
        *("weights", "card", "lint", "doctor", "onnx", "tracking"),
    ),
    ("comparison", "planning", "report", "search", "training"),
    ("commands",),
    ("terminal",),
    ("api", "cli"),
    ("__main__", "worker"),
)
LAYER_OF = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}


@dataclass(frozen=True, slots=True)
class Import:
    """One import of a module, wherever it stands in it."""

    source: str
    """The importing module, such as ``bigner.data.encode``."""
    target: str
    """The imported module, as far as the statement names it: ``bigner.optim``, ``torch``."""
    line: int
    lazy: bool
    """It stands inside a function, so it is done when that is called, or is for the type checker
    alone."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"

    def is_of(self, name: str) -> bool:
        return self.target == name or self.target.startswith(f"{name}.")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> dict[str, ast.Module]:
    """Module -> its syntax tree."""
    return {
        module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports_in(source: str, tree: ast.Module) -> Iterator[Import]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    lazy = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, functions) or is_for_types(block)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from bigner import log` names a module, `from bigner.log import warn` one in it.
            targets = [name if is_module(name) else str(node.module) for name in names]
        for target in dict.fromkeys(targets):
            yield Import(source, target, node.lineno, id(node) in lazy)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def is_module(name: str) -> bool:
    # Of other packages the longer name does no harm.
    return name in trees() or not name.startswith("bigner")


@cache
def imports() -> list[Import]:
    return [found for source, tree in trees().items() for found in imports_in(source, tree)]


def room_of(module: str) -> str:
    """What stands right below ``bigner``."""
    return module.split(".")[1] if "." in module else ""


def shown(broken: list[Import]) -> list[str]:
    return [str(found) for found in broken]


def importers(target: str) -> set[str]:
    return {found.source for found in imports() if found.is_of(target)}


# ---------------------------------------------------------------- the walk itself


def test_the_walk_sees_what_there_is() -> None:
    assert len(trees()) > 30
    found = {(i.source, i.target, i.lazy) for i in imports()}
    assert ("bigner.data.encode", "bigner.data.heads", False) in found
    assert ("bigner.training.checkpoints", "bigner.checkpoint.save", False) in found
    assert ("bigner.cli.runs", "bigner.commands.train", True) in found
    assert ("bigner.strategies", "bigner.strategies.zero", True) in found


def test_the_walk_reads_every_kind_of_import() -> None:
    code = "import a.b, c\nfrom d import e\ndef f():\n  import g\n  from bigner.log import warn\n"
    code += "if TYPE_CHECKING:\n  import h\n"
    found = [(i.target, i.lazy) for i in imports_in("m", ast.parse(code))]
    assert found == [
        ("a.b", False),
        ("c", False),
        ("d.e", False),
        ("g", True),
        ("bigner.log", True),
        ("h", True),
    ]


# ---------------------------------------------------------------- layers


def test_every_room_has_a_layer() -> None:
    rooms = {room_of(module) for module in trees()} - {""}
    assert rooms == set(LAYER_OF), "name the layer of a new room in LAYERS and CONTRIBUTING.md"


def test_imports_point_down() -> None:
    broken = [
        found
        for found in imports()
        # The package itself holds its version, and names what is public for those who ask.
        if found.is_of("bigner") and found.target != "bigner" and found.source != "bigner"
        if LAYER_OF[room_of(found.target)] > LAYER_OF[room_of(found.source)]
    ]
    assert shown(broken) == []


def test_the_package_itself_imports_nothing() -> None:
    eager = [i for i in imports() if i.source == "bigner" and not i.lazy]
    assert shown([i for i in eager if not i.is_of("typing")]) == []


def test_commands_do_not_import_each_other() -> None:
    broken = [
        found
        for found in imports()
        if room_of(found.source) == "commands" and found.is_of("bigner.commands")
    ]
    assert shown(broken) == []


def test_no_cycles() -> None:
    graph: dict[str, set[str]] = {module: set() for module in trees()}
    for found in imports():
        if found.target in graph and not found.lazy:
            graph[found.source].add(found.target)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules that import each other: {error.args[1]}")


# ---------------------------------------------------------------- who may import what


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("deepspeed", "bigner.strategies.zero"),
        ("torch.distributed.fsdp", "bigner.strategies.fsdp"),
        ("seqeval", "bigner.evaluation.metrics"),
        ("datasets", "bigner.data.formats.hub"),
        ("matplotlib", "bigner.report.charts"),
        ("torch.utils.tensorboard", "bigner.tracking.tensorboard"),
        ("mlflow", "bigner.tracking.mlflow"),
        ("onnxruntime", "bigner.onnx.checking"),
        ("optuna", "bigner.search.study"),
        ("wandb", "bigner.tracking.wandb"),
        ("bigner.strategies.single", "bigner.strategies"),
        ("bigner.strategies.fsdp", "bigner.strategies"),
        ("bigner.strategies.zero", "bigner.strategies"),
    ],
)
def test_imported_in_one_place(target: str, place: str) -> None:
    # DeepSpeed's own classes may also check a ds_configs file.
    also = {"bigner.config.deepspeed"} if target == "deepspeed" else set()
    assert importers(target) - also == {place}


def test_deepspeed_is_imported_when_it_is_needed() -> None:
    eager = [i for i in imports() if i.is_of("deepspeed") and not i.lazy]
    assert shown(eager) == []


def test_a_run_imports_the_one_backend_it_uses() -> None:
    backends = ("single", "fsdp", "zero")
    named = [i for i in imports() if any(i.is_of(f"bigner.strategies.{b}") for b in backends)]
    assert {found.target.split(".")[2] for found in named} == set(backends)
    assert shown([found for found in named if not found.lazy]) == []


def test_strategies_do_not_know_the_task() -> None:
    rooms = ("data", "evaluation", "checkpoint", "export", "run_dir", "sample", "commands")
    broken = [
        found
        for found in imports()
        if room_of(found.source) == "strategies"
        and any(found.is_of(f"bigner.{room}") for room in rooms)
    ]
    assert shown(broken) == []


def eager_closure(module: str) -> set[str]:
    """Everything that importing a module imports, modules of others by their first name."""
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        source = waiting.pop()
        # Importing bigner.a.b imports bigner.a too.
        parts = source.split(".")
        names = {".".join(parts[:i]) for i in range(1, len(parts) + 1)} & set(trees())
        for name in names - reached:
            reached.add(name)
            waiting += [i.target for i in imports() if i.source == name and not i.lazy]
        if not names:
            reached.add(parts[0])
    return reached


def test_the_closure_follows_imports() -> None:
    assert {"torch", "transformers", "bigner.data.heads", "bigner.data"} <= eager_closure(
        "bigner.modeling"
    )


@pytest.mark.parametrize(
    "module",
    [
        *(m for m in trees() if m.startswith(("bigner.config", "bigner.data.formats"))),
        "bigner.__main__",
        "bigner.worker",
        "bigner.api.launch",
        "bigner.api.run",
        "bigner.commands.card",
        "bigner.commands.compare",
        "bigner.commands.doctor",
        "bigner.commands.lint",
        "bigner.commands.onnx",
        "bigner.commands.push",
        "bigner.commands.report",
        "bigner.commands.validate",
        "bigner.data.corpus",
        "bigner.evaluation.metrics",
        "bigner.log",
        *(
            "bigner.prediction.options",
            "bigner.prediction.sources",
            "bigner.prediction.growing_file",
        ),
        "bigner.report.page",
        *(m for m in trees() if m.startswith("bigner.terminal")),
    ],
)
def test_free_of_torch(module: str) -> None:
    """What answers at once, or in an environment without torch."""
    heavy = {"torch", "transformers", "datasets", "deepspeed", "tokenizers", "seqeval"}
    assert eager_closure(module) & heavy == set()


# ---------------------------------------------------------------- what nobody does


def test_no_pickle() -> None:
    forbidden = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
    assert {name for name in forbidden if importers(name)} == set()
    calls = [
        (module, node)
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.save")
    ]
    # A pickled file of pretrained weights is read, by the loader that runs no code.
    assert {module for module, _ in calls} == {"bigner.weights.files"}
    for _, call in calls:
        assert ast.unparse(call.func) == "torch.load"
        assert "weights_only=True" in [ast.unparse(keyword) for keyword in call.keywords]
    assert not [i for i in imports() if i.target in ("torch.load", "torch.save")]


KINDS = {"single", "fsdp", "zero"}


def kinds_asked(tree: ast.Module) -> Iterator[int]:
    """Lines that compare something with the name of a strategy."""
    for node in ast.walk(tree):
        compared: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            compared = [node.value]
        constants = (n for part in compared for n in ast.walk(part) if isinstance(n, ast.Constant))
        yield from (constant.lineno for constant in constants if constant.value in KINDS)


def test_nobody_asks_which_strategy_it_is() -> None:
    asked = [
        f"{module}:{line}"
        for module, tree in trees().items()
        if room_of(module) != "config"
        for line in kinds_asked(tree)
    ]
    assert asked == []


@pytest.mark.parametrize(
    "code",
    [
        "x = 1 if config.strategy.kind == 'zero' else 2",
        "kind in ('fsdp', 'zero')",
        "match kind:\n    case 'single': pass",
        "'fsdp' != kind",
    ],
)
def test_questions_are_recognised(code: str) -> None:
    assert list(kinds_asked(ast.parse(code)))
