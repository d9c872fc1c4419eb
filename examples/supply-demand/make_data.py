"""Writes the synthetic data of this scenario, the same at each run: python3 make_data.py"""

import csv
import random
from pathlib import Path

HERE = Path(__file__).parent
random.seed(34)
REGIONS = ["CN-4401", "CN-4403", "CN-4404", "CN-4406", "CN-4413", "CN-4419"]
MONTHS = [f"{year}-{month:02}-01" for year in (2022, 2023, 2024, 2025) for month in range(1, 13)]


def freight(name, scale):
    with open(HERE / name, "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["region_code", "month", "shipments", "late_share"])
        for month in MONTHS:
            for region in REGIONS:
                rows.writerow([region, month, int(random.gauss(scale, scale / 8)), round(random.uniform(0.01, 0.12), 3)])


freight("port_freight.csv", 9000)
freight("rail_freight.csv", 4000)
freight("courier_freight.csv", 22000)
