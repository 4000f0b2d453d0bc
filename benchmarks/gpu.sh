#!/usr/bin/env bash
# A quarter of an hour of a lent GPU, in three calls:
#
#   benchmarks/gpu.sh OUT_DIR first [DATA ...]    synthesis and features (40 s), base (300 s), its factors and probes on
#                                                 DATA (60 s), fine-tuning on the first DATA beside scratch (90 s)
#   benchmarks/gpu.sh OUT_DIR weights RUN [FROM]  encoder of base or small in bf16: files FROM, FROM + 1, ... as many as
#                                                 a call brings home; it says which come next
#   benchmarks/gpu.sh OUT_DIR small SECONDS       the recipe audiopg_small for so long; then its weights
#
# A call leaves at most 8 files below 15 MB in OUT_DIR, which may be emptied before the next; what the machine keeps is
# in OUT_DIR.run. A step that is cut off keeps what it has, the next ones still run, a table comes last, and the same
# call goes on. SPEED_SECONDS, BASE_SECONDS, PROBES_SECONDS and FINETUNING_SECONDS give the steps of `first` other
# limits. At home, the files of all calls of `weights` in one folder are a checkpoint for AudioPGModel.from_pretrained.
#
# DATA, where the machine has no audio libraries, are files made elsewhere, with any AudioPG checkpoint:
#   python training/feature_cache.py CHECKPOINT ESC-10 esc10.safetensors --clip_seconds null
# Or folders of recordings. Fine-tuning takes clips of a file as long as they are, and of a folder as `fast` wants them.
#
# Needs setuptools, torch, transformers, accelerate, numpy, PyYAML, filelock, jsonargparse and docstring-parser, and no
# network; probes and fine-tuning also scikit-learn, SciPy, threadpoolctl and matplotlib; folders of recordings datasets,
# soundfile and torchaudio. Bring what is missing:
#   python -m pip install --no-deps --target site jsonargparse docstring-parser     # elsewhere, for that machine
#   PYTHONPATH=site COMMIT=$(git rev-parse --short=12 HEAD) benchmarks/gpu.sh ...   # COMMIT for a copy without .git
#
# Without a GPU it runs at toy size.
set -uo pipefail

usage() {
  echo "usage: benchmarks/gpu.sh OUT_DIR first [DATA ...] | weights RUN [FROM] | small SECONDS" >&2
  exit 2
}
[ $# -ge 2 ] || usage
root=$(cd "$(dirname "$0")/.." && pwd)
out=$1 call=$2
shift 2
case $call in
  first) steps=(speed base probes finetuning) ;;
  weights) [ $# -ge 1 ] && [ $# -le 2 ] || usage; steps=() ;;
  small) [ $# -eq 1 ] || usage; steps=(small) ;;
  *) usage ;;
esac
for data in "$@"; do
  [ "$call" != first ] || [ -e "$data" ] || { echo "gpu.sh: there is no $data; see its head for DATA." >&2; exit 2; }
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 PYTHONUNBUFFERED=1
if [ -z "${COMMIT:-}" ] && [ -e "$root/.git" ]; then
  COMMIT=$(git -C "$root" describe --always --exclude='*' --abbrev=12 --dirty=+ 2>/dev/null)
fi
export COMMIT=${COMMIT:-}

if ! "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("audiopg") is None)'; then
  # A bare machine: put the package together beside what it runs, by setuptools alone.
  (cd "$root" && "$python" setup.py --quiet build_py --force --build-lib "$out.run/site") || exit 1
  export PYTHONPATH="$out.run/site${PYTHONPATH:+:$PYTHONPATH}"
fi

trap '"$python" "$root/benchmarks/gpu_summary.py" "$out" "${steps[@]}"' EXIT
trap 'exit 143' TERM INT

status=0
step() { # SECONDS, step, its words
  echo "== $2"
  # TERM first, so that pre-training saves where it is; KILL if that takes too long.
  timeout --foreground -k 10 "$1" "$python" "$root/benchmarks/gpu.py" "$out" "${@:2}" || {
    status=$?
    echo "== $2 ended with $status" >&2
  }
}

case $call in
  first)
    step "${SPEED_SECONDS:-40}" speed
    step "${BASE_SECONDS:-300}" base "${BASE_SECONDS:-300}"
    step "${PROBES_SECONDS:-60}" probes "$@"
    step "${FINETUNING_SECONDS:-90}" finetuning "$@"
    ;;
  weights) step 60 weights "$@" ;;
  small)
    step "$1" small "$1"
    step 60 weights small
    ;;
esac
exit "$status"
