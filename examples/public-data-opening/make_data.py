"""Writes the synthetic data of this scenario, the same at each run: python3 make_data.py (needs pyarrow)"""

import csv
import hashlib
import random
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
random.seed(32)
START = datetime(2026, 3, 2, 7, 0)
vehicles = [hashlib.sha256(f"bus {number}".encode()).hexdigest()[:12] for number in range(20)]

gps = {name: [] for name in ["line_id", "vehicle_hash", "ts", "lon", "lat", "speed"]}
for number in range(400):
    bus = number % 20
    gps["line_id"].append(f"{['B12', 'B25', 'B7', 'M3'][bus % 4]}")
    gps["vehicle_hash"].append(vehicles[bus])
    gps["ts"].append((START + timedelta(seconds=15 * (number // 20))).isoformat() + "+08:00")
    gps["lon"].append(round(113.26 + bus * 0.004 + number * 0.0001, 5))
    gps["lat"].append(round(23.13 + random.uniform(-0.02, 0.02), 5))
    gps["speed"].append(round(max(0, random.gauss(24, 9)), 1))
pq.write_table(pa.table(gps), HERE / "bus_gps.parquet", compression="none")

with open(HERE / "air_quality.csv", "w", newline="") as file:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["station", "ts", "pm25", "o3"])
    for number in range(240):
        ts = datetime(2026, 3, 1) + timedelta(hours=number // 5)
        rows.writerow([f"S{number % 5 + 1:02}", ts.isoformat() + "+08:00", random.randint(9, 70), random.randint(20, 160)])

with open(HERE / "driver_roster.csv", "w", newline="") as file:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["driver_id", "line_id", "shift"])
    rows.writerows([[f"DRV{number:03}", random.choice(["B12", "B25", "B7", "M3"]), random.choice("ABC")] for number in range(60)])

# A result: mean speed by line.
with open(HERE / "speed_by_line.csv", "w", newline="") as file:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["line_id", "mean_speed"])
    for line in ["B12", "B25", "B7", "M3"]:
        speeds = [speed for name, speed in zip(gps["line_id"], gps["speed"]) if name == line]
        rows.writerow([line, round(sum(speeds) / len(speeds), 1)])
