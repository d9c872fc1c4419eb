"""Makes the data and measures: `make FOLDER MB`, `polars FORMAT IN OUT` (one run, in this process), `all FOLDER BINARY`."""
import json, os, pathlib, subprocess, sys, time

KEEP = ["id", "city", "age", "amount", "day", "note"]
OBLIGATIONS = "keep(id, city, age, amount, day, note); filter(amount > 250); band(age, 10)"
FLOOR = 0.5


def make(folder, megabytes):
    """16 columns, about the same bytes a row as a table that people keep; written once, by polars."""
    import numpy as np
    import polars as pl

    folder.mkdir(parents=True, exist_ok=True)
    csv, parquet = folder / "table.csv", folder / "table.parquet"
    rows = 200_000
    random = np.random.default_rng(7)
    words = np.array(["Hangzhou", "Tallinn", "Nairobi", "São Paulo", "上海", "Oslo", "Quito", "Winnipeg"])
    notes = np.array([f"visit {n}, {'follow up' if n % 3 else 'closed'}" if n % 10 == 0 else f"note {n}" for n in range(500)])

    def block(number):
        first = number * rows
        return pl.DataFrame({
            "id": np.arange(first, first + rows),
            "code": random.integers(10**9, 10**10, rows),
            "name": np.char.add("person ", random.integers(0, 10**6, rows).astype(str)),
            "city": words[random.integers(0, len(words), rows)],
            "age": random.integers(0, 100, rows),
            "amount": (random.random(rows) * 1000).round(2),
            "day": (np.datetime64("2020-01-01") + random.integers(0, 1500, rows)),
            "note": notes[random.integers(0, len(notes), rows)],
            **{f"m{n}": (random.random(rows) * 10**n).round(n % 4) for n in range(1, 6)},
            "flag": random.random(rows) < 0.3,
            "count": random.integers(-1000, 1000, rows),
            "group": words[random.integers(0, 4, rows)],
        })

    if not csv.exists():
        with open(csv, "wb") as out:
            number = 0
            while out.tell() < megabytes * 1_000_000:
                block(number).write_csv(out, include_header=number == 0)
                number += 1
    if not parquet.exists():
        # wide blocks of numbers pack badly: as many rows as give the same bytes
        parts, number = [], 0
        size = 0
        while size < megabytes * 1_000_000:
            part = folder / f"part{number}.parquet"
            block(number).write_parquet(part, compression="snappy")
            size += part.stat().st_size
            parts.append(part)
            number += 1
        pl.scan_parquet(parts).sink_parquet(parquet, compression="snappy", row_group_size=rows)
        for part in parts:
            part.unlink()


def polars(kind, source, target):
    """The same projection, filter and band, by the streaming engine."""
    import polars as pl

    begun = time.monotonic()
    frame = pl.scan_csv(source) if kind == "csv" else pl.scan_parquet(source)
    low = pl.col("age") // 10 * 10
    frame = frame.filter(pl.col("amount") > 250).select(
        "id", "city", (low.cast(pl.String) + "-" + (low + 9).cast(pl.String)).alias("age"), "amount", "day", "note"
    )
    if kind == "csv":
        frame.sink_csv(target, line_terminator="\r\n")
    else:
        frame.sink_parquet(target, compression="snappy")
    print(json.dumps({"seconds": time.monotonic() - begun}))


def same(kind, ours, theirs):
    """Whether both made the same table."""
    import polars as pl

    scan = (lambda path: pl.scan_csv(path, infer_schema=False)) if kind == "csv" else pl.scan_parquet
    a, b = scan(ours).select(KEEP), scan(theirs).select(KEEP)
    sums = [pl.len(), *[pl.col(name).hash(7).sum().alias(name) for name in KEEP]]
    return a.select(sums).collect(engine="streaming").equals(b.select(sums).collect(engine="streaming"))


def run(command, **environment):
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}: {done.stderr or done.stdout}")
    return json.loads(done.stdout)


def everything(folder, binary):
    broken = False
    for kind in ["csv", "parquet"]:
        source = folder / f"table.{kind}"
        megabytes = source.stat().st_size / 1e6
        ours, theirs = folder / f"ours.{kind}", folder / f"theirs.{kind}"
        best, peak = {}, ""
        # turn by turn, so that a busy machine is busy for all; the best of three
        for _ in range(3):
            turn = run([binary, kind, OBLIGATIONS, source, ours])
            peak = turn["peak_rss"]
            script = [sys.executable, __file__, "polars", kind, source, theirs]
            times = {
                "counterseal": turn["seconds"],
                "polars, 1 thread": run(script, POLARS_MAX_THREADS="1")["seconds"],
                "polars, all threads": run(script)["seconds"],
            }
            best = {who: min(seconds, best.get(who, seconds)) for who, seconds in times.items()}
        if not same(kind, ours, theirs):
            sys.exit(f"{kind}: the two results differ")
        mine = megabytes / best["counterseal"]
        print(f"{kind}: {megabytes:.0f} MB, the same table from both; peak RSS {peak}")
        for who, seconds in best.items():
            print(f"  {who:<20} {megabytes / seconds:8.1f} MB/s   ours is {mine * seconds / megabytes:.2f}x")
        if mine * best["polars, 1 thread"] / megabytes < FLOOR:
            broken = True
            print(f"  BROKEN: below {FLOOR}x of one thread of polars")
        ours.unlink(), theirs.unlink()
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, megabytes]:
            make(pathlib.Path(folder), int(megabytes))
        case ["polars", kind, source, target]:
            polars(kind, source, target)
        case ["all", folder, binary]:
            everything(pathlib.Path(folder), binary)
        case _:
            sys.exit(__doc__)
