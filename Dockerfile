# An image that trains: docker build --tag bigner . && docker run --gpus all --ipc host bigner --help
#
# torch's own image has CUDA, nccl and a compiler for what DeepSpeed builds at its first start.
FROM pytorch/pytorch:2.11.0-cuda12.8-cudnn9-devel

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/data/huggingface \
    BIGNER_CACHE=/data/cache

WORKDIR /opt/bigner
COPY pyproject.toml README.md LICENSE ./
COPY bigner bigner
COPY ds_configs ds_configs
COPY run_configs run_configs
RUN pip install .

# Run files name their data, models and run_dir below here; mount storage that all nodes share.
WORKDIR /data
ENTRYPOINT ["bigner"]
CMD ["--help"]
