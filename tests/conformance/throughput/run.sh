#!/usr/bin/env bash
# The transform beside polars' streaming engine, on the same files: the same projection, filter and band, the same
# table out. Fails below half the speed of one thread of polars. Needs Python, PyPI and 5 GB of disk.
#   MB=1000          size of each input
#   WORK=…           where data and the virtual environment lie; kept if given, else removed
#   TRANSFORM=…      the built example; else it is built
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
if [ -z "${WORK:-}" ]; then
  WORK="$(mktemp -d)"
  trap 'rm -rf "$WORK"' EXIT
fi
mkdir -p "$WORK"
[ -d "$WORK/venv" ] || python3 -m venv "$WORK/venv"
"$WORK/venv/bin/pip" install --quiet 'polars>=1.30' numpy
if [ -z "${TRANSFORM:-}" ]; then
  (cd "$root" && cargo build --quiet --release --example transform)
  TRANSFORM="${CARGO_TARGET_DIR:-$root/target}/release/examples/transform"
fi
python="$WORK/venv/bin/python"
"$python" "$here/compare.py" make "$WORK/data" "${MB:-1000}"
"$python" "$here/compare.py" all "$WORK/data" "$TRANSFORM"
