#!/usr/bin/env bash
# Exports of the demo, read by Go's checksum database code and by transparency-dev: C2SP tlog-tiles, signed-note,
# tlog-cosignature. `--if-reachable`: says so and goes on where there is no Go or no module proxy.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

missing() {
  echo "tlog: $1; nothing was checked"
  [ "${flag:-}" = "--if-reachable" ] && exit 0
  exit 1
}
flag="${1:-}"
command -v go >/dev/null || missing "no Go here"
(cd "$here" && go build -o "$work/tlog" . 2>"$work/go.log") || missing "it does not build: $(tail -n 1 "$work/go.log")"
cd "$root"
cargo run --quiet -- demo --folder "$work/demo" >"$work/demo.log" || { cat "$work/demo.log"; exit 1; }
"$work/tlog" "$work/demo/hospital/export" "$work/demo/research/export"
