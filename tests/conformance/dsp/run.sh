#!/usr/bin/env bash
# The official Dataspace Protocol kit against a connector of ours, started for it. See README.md.
#   run.sh [--if-reachable] [--config FILE]
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
kit="$root/target/dsp-tck"
export PYTHONDONTWRITEBYTECODE=1

unreachable=1
config=
while (($#)); do
  case "$1" in
    --if-reachable) unreachable=0 ;;
    --config) config="$(realpath "$2")"; shift ;;
    *) echo "usage: run.sh [--if-reachable] [--config FILE]" >&2; exit 2 ;;
  esac
  shift
done

pids=()
work="$(mktemp -d)"
finish() {
  local code=$?
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  if ((code)); then echo "logs: $work" >&2; else rm -rf "$work"; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

# waits for a file that a process of ours writes when it is ready
await() { # FILE PID LOG
  for _ in $(seq 600); do
    [[ -e "$1" ]] && return
    kill -0 "$2" 2>/dev/null || break
    sleep 0.1
  done
  echo "dsp: $1 did not appear" >&2
  tail -n 20 "$3" >&2
  exit 1
}

python3 -m unittest discover --quiet --start-directory "$here" --pattern '*_test.py' 2>"$work/unit.log" || {
  cat "$work/unit.log" >&2
  exit 1
}

# --- the kit
if ! command -v java >/dev/null || { [[ -z "${DSP_TCK_JAR:-}" ]] && ! command -v mvn >/dev/null; }; then
  echo "dsp: no Java 17 or no Maven here; the kit was not run"
  exit "$unreachable"
fi
if [[ -n "${DSP_TCK_JAR:-}" ]]; then
  suite=(-cp "$DSP_TCK_JAR" org.eclipse.dataspacetck.dsp.suite.DspTckSuite)
else
  suite=(-cp "$kit/lib/*" "$here/DspTckSuite.java")
  if ! cmp -s "$here/pom.xml" "$kit/fetched.xml"; then
    rm -rf "$kit/lib"
    code=0
    timeout 300 mvn -B -q -U -f "$here/pom.xml" \
      org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies >"$work/mvn.log" 2>&1 || code=$?
    if ((code == 124)) || { ((code)) && grep -qE 'Could not transfer|Unknown host' "$work/mvn.log"; }; then
      echo "dsp: Maven Central does not answer here; the kit was not run"
      exit "$unreachable"
    elif ((code)); then
      cat "$work/mvn.log" >&2
      exit 1
    fi
    cp "$here/pom.xml" "$kit/fetched.xml"
  fi
fi

# --- the connector under test, and who plays its operator
if [[ -z "$config" ]]; then
  if [[ -z "${COUNTERSEAL:-}" ]]; then
    (cd "$root" && cargo build --quiet)
    COUNTERSEAL="${CARGO_TARGET_DIR:-$root/target}/debug/counterseal"
  fi
  home="$work/cut"
  "$COUNTERSEAL" --home "$home" init --name cut \
    --partner 127.0.0.1:0 --management 127.0.0.1:0 --plain 127.0.0.1:0 >"$work/init.log"
  "$COUNTERSEAL" --home "$home" serve >"$work/serve.log" 2>&1 &
  pids+=($!)
  await "$home/running.json" $! "$work/serve.log"

  port="$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')"
  config="$work/kit.properties"
  python3 "$here/bot.py" "$home" "$port" "$config" >"$work/bot.log" 2>&1 &
  pids+=($!)
  await "$config" $! "$work/bot.log"
fi

# --- the run; in the background, so that a signal to us ends it at once
timeout --kill-after=10 600 java "${suite[@]}" -config "$config" >"$work/kit.log" 2>&1 &
pids+=($!)
wait $! || echo "dsp: the kit ended with $?" >&2
code=0
python3 "$here/results.py" "$work/kit.log" >"$work/results" || code=$?
((code)) && sed -n '/Failures:/,$p' "$work/kit.log"
cat "$work/results"
exit "$code"
