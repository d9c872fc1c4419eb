# What a developer does; CI calls the same commands.

# everything that guards main
default: test lint

# unit and integration tests
test:
    cargo test

# format and lints
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings

# the whole story
demo *args:
    cargo run --release -- demo {{args}}

# a scenario's folder: `just scenario examples/healthcare`
scenario *args:
    cargo run --release -- scenario {{args}}

# benchmarks, as ratios within one run
bench *args:
    cargo bench {{args}}

# our objects opened by independent implementations, and theirs by us
jose:
    bash tests/conformance/jose/run.sh

# our logs and exports read by Go's checksum database and transparency-dev (needs Go)
tlog:
    bash tests/conformance/tlog/run.sh

# killed 200 times, 100 power cuts, failing disks (the latter two need root, loop devices and xfsprogs)
torture:
    cargo build --release --example torture
    ./target/release/examples/torture kill --rounds 200
    ./target/release/examples/torture power --rounds 100
    ./target/release/examples/torture torn
    ./target/release/examples/torture faults

# the official Dataspace Protocol kit against an ordinary connector of ours (needs Java 17, Maven, Python)
tck-dsp *args:
    bash tests/conformance/dsp/run.sh {{args}}

# proofs about policies (needs the solver cvc5; root gets it from Debian)
prove:
    command -v "${CVC5:-cvc5}" >/dev/null || { [ "$(id -u)" = 0 ] && apt-get install -y cvc5; }
    cargo test --features prove --lib policy::prove

# licences, duplicate versions, advisories (needs cargo-deny)
deny:
    cargo deny check

# obligations on CSV and Parquet beside polars (needs Python, PyPI and 5 GB of disk)
throughput:
    bash tests/conformance/throughput/run.sh
