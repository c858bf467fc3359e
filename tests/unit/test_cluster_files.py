"""The files that lead onto a cluster: they parse, they name what is there, schemas take them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from bigner.cli import strip_launcher_options
from bigner.config.load import load_config

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), *(ROOT / "scripts").glob("*.sbatch")])
SBATCH = [path for path in SCRIPTS if path.suffix == ".sbatch"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path: Path) -> None:
    tool = shutil.which("shellcheck", path=Path(sys.executable).parent)
    assert tool is not None
    command = [tool, "--external-sources", "--source-path", str(ROOT), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SBATCH, ids=lambda path: path.name)
@pytest.mark.parametrize("signalled", [False, True], ids=["to its end", "stopped"])
def test_a_batch_script_starts_stops_and_queues_again(
    path: Path, signalled: bool, tmp_path: Path
) -> None:
    """With Slurm's commands replaced by some that note what they were called with."""
    log = tmp_path / "log"
    names = 'if [ "$1" = show ]; then echo one two; fi'
    _command(tmp_path, "scontrol", f'echo "scontrol $*" >> {log}; {names}')
    wait = "while sleep 0.1; do :; done" if signalled else ":"
    ends = f"trap 'echo \"stopped\" >> {log}; exit 143' TERM"
    _command(tmp_path, "srun", f'{ends}; echo "srun $*" >> {log}; {wait}')
    variables = {
        "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]]),
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node-[1-2]",
        "SLURM_GPUS_ON_NODE": "8",
    }
    with subprocess.Popen(
        ["bash", str(path), "run.yaml", "seed=1"], env=variables, cwd=tmp_path
    ) as batch:
        if signalled:
            while "srun" not in (log.read_text() if log.exists() else ""):
                assert batch.poll() is None
            batch.send_signal(10)
        assert batch.wait(60) == 0
    told = log.read_text()
    launched = re.search(r"srun .*", told)
    assert launched is not None
    assert launched[0].endswith("bigner train run.yaml seed=1")
    assert "24711" in launched[0]
    if signalled:
        assert told.index("stopped") < told.index("scontrol requeue 4711")
    else:
        assert "requeue" not in told


def _command(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("path", SBATCH, ids=lambda path: path.name)
def test_a_batch_script_without_a_run_file(path: Path) -> None:
    done = subprocess.run(["bash", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: sbatch" in done.stderr


def test_what_files_name_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    places = [*SBATCH, ROOT / "docs" / "clusters.md", ROOT / "scripts" / "hostfile.example"]
    named = {
        name for path in places for name in re.findall(r"run_configs/\w+\.yaml", path.read_text())
    }
    assert named
    for name in named:
        assert load_config(name).strategy.needs_process_group
    launcher = ["--local_rank=3", "train", "run.yaml"]
    assert strip_launcher_options(launcher) == ["train", "run.yaml"]


# ------------------------------------------------------------ Kubernetes


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Metadata(_Closed):
    name: str


class _ElasticPolicy(_Closed):
    """As kubeflow.org/v1 has it, as far as it is used here."""

    rdzvBackend: Literal["c10d", "etcd", "etcd-v2"]  # noqa: N815
    minReplicas: int  # noqa: N815
    maxReplicas: int  # noqa: N815
    maxRestarts: int  # noqa: N815


class _RunPolicy(_Closed):
    cleanPodPolicy: Literal["None", "Running", "All"]  # noqa: N815
    backoffLimit: int  # noqa: N815


class _ReplicaSpec(_Closed):
    replicas: int
    restartPolicy: Literal["Always", "OnFailure", "Never", "ExitCode"]  # noqa: N815
    template: dict[str, Any]


class _Spec(_Closed):
    nprocPerNode: str  # noqa: N815
    elasticPolicy: _ElasticPolicy  # noqa: N815
    runPolicy: _RunPolicy  # noqa: N815
    pytorchReplicaSpecs: dict[Literal["Master", "Worker"], _ReplicaSpec]  # noqa: N815


class _PyTorchJob(_Closed):
    apiVersion: Literal["kubeflow.org/v1"]  # noqa: N815
    kind: Literal["PyTorchJob"]
    metadata: _Metadata
    spec: _Spec


@pytest.fixture
def manifest() -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = yaml.safe_load((ROOT / "scripts" / "pytorchjob.yaml").read_text())
    return loaded


def test_the_kubernetes_job_is_one(manifest: Mapping[str, Any]) -> None:
    job = _PyTorchJob.model_validate(manifest)
    worker = job.spec.pytorchReplicaSpecs["Worker"]
    assert worker.replicas == job.spec.elasticPolicy.minReplicas
    # Its pods, by the schema of Kubernetes itself.
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worker"},
        "spec": worker.template["spec"],
    }
    kubernetes_validate.validate(pod, "1.31", strict=True)
    (container,) = worker.template["spec"]["containers"]
    # The operator looks for a container of this name.
    assert container["name"] == "pytorch"
    assert str(container["resources"]["limits"]["nvidia.com/gpu"]) == job.spec.nprocPerNode


def test_a_misspelt_field_would_be_found(manifest: Mapping[str, Any]) -> None:
    worker = manifest["spec"]["pytorchReplicaSpecs"]["Worker"]
    container = {**worker["template"]["spec"]["containers"][0], "imagge": "bigner"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worker"},
        "spec": {"containers": [container]},
    }
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, "1.31", strict=True)
