"""Makes the scenario's data: always the same. No such factory exists. Run it in this folder."""

import csv
import random

random.seed(20260304)
# codes of no registered company
FACTORIES = [f"99440000MA{number:06}XX" for number in range(1, 13)]
MONTHS = [f"{year}-{month:02}" for year in (2024, 2025) for month in range(1, 13)]

power, gas = [], []
for factory in FACTORIES:
    size = random.uniform(0.4, 2.5)
    for month in MONTHS:
        power.append([factory, month, round(size * random.uniform(380_000, 520_000))])
        gas.append([
            factory, month, round(size * random.uniform(11_000, 17_000)), round(size * random.uniform(900, 1500), 1),
            round(size * random.uniform(20, 45), 1),
        ])
with open("data/energy_power.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["uscc", "month", "kwh"])
    writer.writerows(power)
with open("data/energy_gas.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["uscc", "month", "gas_m3", "heat_gj", "coal_t"])
    writer.writerows(gas)

# What the assessor's application makes of both, here with fixed factors: t CO2e per kWh, m3, GJ and t of coal.
# An illustration of a method, not one.
with open("data/carbon_report.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["uscc", "year", "tco2e", "intensity", "grade"])
    for factory in FACTORIES:
        kwh = sum(row[2] for row in power if row[0] == factory and row[1].startswith("2025"))
        fuels = [row[2:] for row in gas if row[0] == factory and row[1].startswith("2025")]
        burnt = sum(m3 * 0.00216 + gj * 0.11 + coal * 1.98 for m3, gj, coal in fuels)
        tons = kwh * 0.00057 + burnt
        intensity = tons / (kwh / 1000)
        grade = "ABCDE"[min(4, max(0, int((intensity - 1.04) / 0.012)))]
        writer.writerow([factory, 2025, f"{tons:.1f}", f"{intensity:.4f}", grade])
