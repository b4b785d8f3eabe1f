#!/usr/bin/env bash
# Runs gpu_check.py on a machine with a GPU and without a network, from the repository's root:
#   OUT=gpu_check tests/gpu/run_check.sh
# That machine has Python 3.12, torch, transformers and pyarrow. If it lacks pydantic, put wheels of pydantic, pydantic-core,
# annotated-types and typing-inspection (and PyYAML) for its Python into .whl/.
set -u
export OUT=${OUT:-gpu_check} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
if ls .whl/*.whl >/dev/null 2>&1; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target .gpu-site .whl/*.whl || exit 1
  export PYTHONPATH=$PWD/.gpu-site${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHONPATH=$PWD/pipelines:$PWD${PYTHONPATH:+:$PYTHONPATH} TORCHINDUCTOR_CACHE_DIR=$PWD/.inductor
mkdir -p "$OUT"
nvidia-smi --query-gpu=name,clocks.sm,clocks.mem,power.draw --format=csv,noheader || true
set -o pipefail
timeout 520 python3 -m tests.gpu.gpu_check --out "$OUT" "$@" 2>&1 | tee "$OUT/log.txt"
