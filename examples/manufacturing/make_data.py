"""Makes the scenario's data: always the same. No such plant exists. Run it in this folder."""

import csv
import random

random.seed(20260305)
DEFECTS = ["", "", "", "", "", "", "", "", "D07", "D12", "D31"]

with open("data/cell_batch.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["batch_id", "line", "ts", "capacity_ah", "ir_mohm", "temp_c", "defect_code", "recipe_id"])
    for number in range(600):
        temp = round(random.gauss(24.5, 1.4), 1)
        writer.writerow([
            f"B26{number // 4:04}", f"L{random.randint(1, 4)}", f"2026-02-{1 + number // 30:02}T{number % 24:02}:{random.randint(0, 59):02}:00+08:00",
            round(random.gauss(51.2, 0.5), 2), round(random.gauss(0.74, 0.05), 3), temp,
            "D31" if temp > 27.5 else random.choice(DEFECTS), f"RX-{random.randint(100, 119)}",
        ])

with open("data/recipes.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["recipe_id", "step", "setpoint"])
    for recipe in range(100, 120):
        for step in range(1, 6):
            writer.writerow([f"RX-{recipe}", step, round(random.uniform(10, 90), 2)])

# what the service firm makes of it: which lines make which defects
with open("data/defects_by_line.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["line", "defect_code", "cells"])
    for line in range(1, 5):
        for code in ["D07", "D12", "D31"]:
            writer.writerow([f"L{line}", code, random.randint(3, 24)])
