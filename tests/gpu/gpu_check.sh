#!/usr/bin/env bash
# gpu_check.py on a machine that lacks some of what drakegpt needs, and has no network:
#
#   tests/gpu/gpu_check.sh [--wheels DIR] [--text tinyshakespeare.txt] [--out DIR] [--seconds 460]
#                          [--patience 1] [--sections env,tests,...] [--dry-run]
#
# It needs python3 with PyTorch for the GPU. What else is missing is taken from the wheels in DIR
# (see fetch_wheels.sh) into a temporary folder; nothing is fetched. All options but --wheels are
# those of gpu_check.py, which says what is looked at. The last line printed is one JSON object.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
wheels=
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --wheels) wheels=$2; shift 2 ;;
    *) arguments+=("$1"); shift ;;
  esac
done
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
site=
if [ -n "$wheels" ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$temporary/site" "$wheels"/*.whl >&2
  site=$temporary/site:
fi
export PYTHONPATH=$checkout:$site${PYTHONPATH:-} PYTHONUNBUFFERED=1
export DRAKEGPT_HOME=$temporary/drakegpt WANDB_MODE=disabled HF_HUB_OFFLINE=1
# Compiled kernels are not left over from an earlier check, so that the time to compile is told too.
export TORCHINDUCTOR_CACHE_DIR=$temporary/inductor TRITON_CACHE_DIR=$temporary/triton
"$python" - >&2 <<'PY'
import importlib.util
needed = (
    "torch numpy typer rich pydantic platformdirs filelock safetensors tokenizers tomli_w "
    "matplotlib pytest pytest_timeout xdist hypothesis"
)
missing = [name for name in needed.split() if importlib.util.find_spec(name) is None]
if missing:
    raise SystemExit(f"Missing here: {', '.join(missing)}. Bring wheels: see fetch_wheels.sh.")
PY
"$python" "$here/gpu_check.py" ${arguments[@]+"${arguments[@]}"}
