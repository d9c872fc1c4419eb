#!/usr/bin/env bash
# Both directions between our formats and libraries that others wrote.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

if ! command -v python3 >/dev/null || ! python3 -m venv "$work/venv" 2>/dev/null; then
  echo "jose: no Python with venv here; the committed vectors were opened by cargo test"
  exit 0
fi
if ! "$work/venv/bin/pip" install --quiet --disable-pip-version-check jwcrypto==1.5.6 http_ece==1.2.1 2>"$work/pip.log"; then
  echo "jose: PyPI does not answer; the committed vectors were opened by cargo test"
  exit 0
fi
"$work/venv/bin/python" "$here/interop.py" make "$work/theirs.json"
cd "$root"
COUNTERSEAL_INTEROP_THEIRS="$work/theirs.json" COUNTERSEAL_INTEROP_OURS="$work/ours.json" \
  cargo test --quiet --lib crypto::interop
"$work/venv/bin/python" "$here/interop.py" open "$work/ours.json"
