"""Writes the synthetic data of this scenario, the same at each run: python3 make_data.py"""

import csv
import json
import random
from datetime import datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
random.seed(37)
START = datetime(2026, 2, 2, 22, 0)

with open(HERE / "cell_batch.csv", "w", newline="") as file:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow("batch_id line ts capacity_ah ir_mohm temp_c defect_code recipe_id".split())
    for number in range(1, 301):
        defect = random.choices(["none", "D01", "D07", "D12"], [90, 5, 3, 2])[0]
        bad = defect != "none"
        rows.writerow([
            f"B{number:05}",
            f"L{number % 3 + 1}",
            (START + timedelta(minutes=7 * number)).isoformat() + "+08:00",
            round(random.gauss(276 if bad else 280, 1.5), 2),
            round(random.gauss(0.62 if bad else 0.55, 0.02), 3),
            round(random.gauss(31 if bad else 28, 1), 1),
            defect,
            f"R-{random.choice([811, 622, 523])}",
        ])

with open(HERE / "line_temperature.jsonl", "w") as file:
    for number in range(120):
        row = {
            "line": f"L{number % 3 + 1}",
            "ts": (START + timedelta(seconds=20 * number)).isoformat() + "+08:00",
            "temp_c": round(random.gauss(28, 1), 1),
        }
        file.write(json.dumps(row) + "\n")

with open(HERE / "recipes.csv", "w", newline="") as file:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["recipe_id", "nickel", "cobalt", "manganese", "sinter_c"])
    rows.writerows([["R-811", 8, 1, 1, 750], ["R-622", 6, 2, 2, 820], ["R-523", 5, 2, 3, 850]])

# What the equipment firm's algorithm finds: defects by line, of what it may see.
batches = list(csv.DictReader(open(HERE / "cell_batch.csv")))
with open(HERE / "defects_by_line.csv", "w", newline="") as file:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["line", "batches", "defects"])
    for line in ["L1", "L2", "L3"]:
        mine = [batch for batch in batches if batch["line"] == line]
        rows.writerow([line, len(mine), sum(batch["defect_code"] != "none" for batch in mine)])
