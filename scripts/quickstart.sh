#!/usr/bin/env bash
# From nothing to two sharded taggers: makes the environment, writes the sample project, trains it
# under DeepSpeed ZeRO-3 and under PyTorch FSDP2, and prints both score tables.
# Usage: scripts/quickstart.sh [FOLDER]   (a folder that is not there yet; default: quickstart)
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/setup.sh
source scripts/setup.sh ""

folder=${1:-quickstart}
bigner init "$folder"
cd "$folder"

# Two processes: on two GPUs where there are two, else on the CPU.
if [ "$(python -c 'import torch; print(torch.cuda.device_count())')" -lt 2 ]; then
    export DS_ACCELERATOR=cpu
fi
precision=$(python - <<'PYTHON'
import os
import torch
from bigner.strategies.precision import fp16_is_native

device = torch.device("cpu" if os.environ.get("DS_ACCELERATOR") == "cpu" else "cuda")
print("fp16" if fp16_is_native(device) else "bf16")
PYTHON
)
port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
echo "precision: $precision$([ "$precision" = fp16 ] || echo ' (this processor has no fp16 units)')"

start=$SECONDS
deepspeed --num_accelerators 2 --master_port "$port" --module bigner \
    train run_zero3.yaml "precision=$precision"
torchrun --standalone --nproc-per-node 2 -m bigner train run_fsdp.yaml "precision=$precision"
trained=$((SECONDS - start))

# Training a finished run again only shows its scores.
for run in zero3 fsdp; do
    echo "== $run"
    bigner train "run_$run.yaml" "precision=$precision"
done
echo "trained twice in $trained s; the models are in $folder/runs/zero3/model and $folder/runs/fsdp/model"
