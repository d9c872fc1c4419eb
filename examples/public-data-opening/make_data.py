"""Makes the scenario's data: always the same; the buses are invented. Run it in this folder; it needs pyarrow."""

import csv
import hashlib
import random
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq

random.seed(20260306)
BEIJING = timezone(timedelta(hours=8))
start = datetime(2026, 2, 1, 6, 0, tzinfo=BEIJING)

rows = []
for number in range(2000):
    bus = random.randint(1, 120)
    rows.append({
        "line_id": f"B{bus % 16 + 1:02}",
        "vehicle_hash": hashlib.sha256(f"bus {bus}".encode()).hexdigest()[:16],
        "ts": (start + timedelta(seconds=15 * number)).isoformat(),
        "lon": round(113.26 + random.uniform(-0.2, 0.2), 5),
        "lat": round(23.13 + random.uniform(-0.15, 0.15), 5),
        "speed": random.randint(0, 62),
    })
pq.write_table(pa.Table.from_pylist(rows), "data/bus_gps.parquet", compression="snappy")

with open("data/air_quality.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["station", "ts", "pm25", "o3"])
    for hour in range(120):
        for station in ["north", "harbour", "centre", "hills"]:
            ts = (start + timedelta(hours=hour)).isoformat()
            writer.writerow([station, ts, round(random.gauss(28, 8), 1), round(random.gauss(70, 20), 1)])

with open("data/plates.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["plate", "vehicle_hash"])
    for bus in range(1, 121):
        writer.writerow([f"TEST-{bus:03}", hashlib.sha256(f"bus {bus}".encode()).hexdigest()[:16]])
