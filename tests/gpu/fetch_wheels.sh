#!/usr/bin/env bash
# Fetch what drakegpt needs beside PyTorch for a machine without a network: wheels for x86-64 Linux
# and one version of CPython, into a folder that gpu_check.sh takes as --wheels.
#
#   tests/gpu/fetch_wheels.sh DIR [3.12]
#
# Small: what `data`, `train`, `generate` and the tests of the GPU import, without what a PyTorch
# for training usually has beside it: NumPy, matplotlib, pytest and its plugins.
set -euo pipefail
folder=${1:?Name a folder}
version=${2:-3.12}
python=${PYTHON:-python3}
mkdir -p "$folder"
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
  platforms+=(--platform "${tag}_x86_64")
done
fetch() {
  "$python" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
    --python-version "$version" "${platforms[@]}" -d "$folder" "$@"
}
fetch "typer>=0.29" annotated-doc shellingham "rich>=14" markdown-it-py mdurl "pygments>=2.13" \
  "pydantic>=2.11" annotated-types typing-inspection typing-extensions "platformdirs>=4" \
  "filelock>=3.15" "tomli-w>=1.1" "safetensors>=0.6" "tokenizers>=0.21" \
  "hypothesis>=6" sortedcontainers
# pydantic wants one version of its core and no other.
core=$("$python" - "$folder" <<'PY'
import pathlib, re, sys, zipfile
wheel = next(pathlib.Path(sys.argv[1]).glob("pydantic-*.whl"))
with zipfile.ZipFile(wheel) as file:
    name = next(n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = file.read(name).decode()
print(re.search(r"^Requires-Dist: pydantic-core==(\S+)", metadata, re.M)[1])
PY
)
fetch "pydantic-core==$core"
du -sh "$folder" >&2
