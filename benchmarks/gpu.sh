#!/usr/bin/env bash
# Everything about speed, and the real recipe, that wants a GPU: benchmarks/gpu.sh OUT_DIR [part ...]
#
# Parts: synthesis, model, comparisons, base, doubles (all, in this order, unless some are named); each is stopped after
# PART_SECONDS (10 minutes). `base` goes on where it was stopped when it is started again: its checkpoints are in
# OUT_DIR.run, which must then be kept. OUT_DIR receives JSON, pictures and bf16 weights in files below 15 MB; a table
# of all that is there comes last, however the parts ended. Needs torch, transformers, accelerate, numpy, PyYAML,
# jsonargparse and docstring-parser (pure Python), no network. Without a GPU it runs at toy size.
set -uo pipefail

if [ $# -lt 1 ]; then
  echo "usage: benchmarks/gpu.sh OUT_DIR [synthesis|model|comparisons|base|doubles ...]" >&2
  exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
out=$1
shift
if [ $# -eq 0 ]; then set -- synthesis model comparisons base doubles; fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 PYTHONUNBUFFERED=1

if ! "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("audiopg") is None)'; then
  # A bare machine: install this checkout beside the results, without network and without its dependencies.
  "$python" -m pip install --quiet --no-deps --no-index --no-build-isolation --target "$out.run/site" "$root" || exit 1
  export PYTHONPATH="$out.run/site${PYTHONPATH:+:$PYTHONPATH}"
fi

trap '"$python" "$root/benchmarks/gpu_summary.py" "$out"' EXIT
trap 'exit 143' TERM INT

status=0
for part in "$@"; do
  echo "== $part"
  # TERM first, so that pre-training saves where it is; KILL if that takes too long.
  timeout --foreground -k 30 "${PART_SECONDS:-590}" "$python" "$root/benchmarks/gpu.py" "$out" "$part" || {
    status=$?
    echo "== $part ended with $status" >&2
  }
done
exit "$status"
