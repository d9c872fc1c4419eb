"""Writes the Parquet files beside it, with other writers than ours. Needs pyarrow and polars."""
import datetime, decimal, pathlib
import polars as pl, pyarrow as pa, pyarrow.parquet as pq

here = pathlib.Path(__file__).parent
day = datetime.date(2024, 2, 27)
table = pa.table({
    "text": pa.array([None if n % 7 == 0 else f"é {n % 5}" for n in range(200)]),
    "small": pa.array([n % 100 for n in range(200)], pa.int8()),
    "large": pa.array([n * 10**15 if n % 3 else None for n in range(200)], pa.int64()),
    "ratio": pa.array([n / 8 for n in range(200)]),
    "yes": pa.array([n % 2 == 0 for n in range(200)]),
    "day": pa.array([day + datetime.timedelta(n) for n in range(200)]),
    "at": pa.array([datetime.datetime(2024, 2, 29, 23, 59, n % 60) for n in range(200)], pa.timestamp("us", "UTC")),
    "price": pa.array([decimal.Decimal(n * 50).scaleb(-2) for n in range(200)], pa.decimal128(12, 2)),
})

def text(value):
    if value is None: return ""
    if isinstance(value, bool): return str(value).lower()
    if isinstance(value, (float, decimal.Decimal)):
        plain = f"{value:f}"
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    if isinstance(value, datetime.datetime): return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)

rows = [",".join(text(value) for value in row.values()) for row in table.to_pylist()]
(here / "table.csv").write_text(",".join(table.column_names) + "\n" + "\n".join(rows) + "\n")
for codec in ["zstd", "gzip", "lz4", "brotli"]:
    pq.write_table(table, here / f"{codec}.parquet", compression=codec)
pq.write_table(table, here / "snappy-v2.parquet", compression="snappy", data_page_version="2.0", row_group_size=70)
pq.write_table(table, here / "plain.parquet", compression="none", use_dictionary=False)
pl.from_arrow(table).write_parquet(here / "polars.parquet")
