"""Makes the scenario's data: always the same. Nobody in it exists. Run it in this folder."""

import csv
import random

random.seed(20260302)
CITIES = ["4401", "4403", "4404", "4406", "4413", "4419", "4420"]
# the numbers are of no administrative area, so that they can't be anybody's
AREA = "990000"


def residents(count):
    for number in range(count):
        birth = f"{random.randint(1935, 2007)}{random.randint(1, 12):02}{random.randint(1, 28):02}"
        id_no = f"{AREA}{birth}{number:03}{random.choice('0123456789X')}"
        life = random.choices(["alive", "deceased", "moved_away"], [90, 6, 4])[0]
        yield [
            id_no, f"Resident {number:04}", random.choice(CITIES), random.choice(["urban", "rural"]), life,
            f"2026-{random.randint(1, 2):02}-{random.randint(1, 28):02}",
        ]


rows = list(residents(1000))
# so that every reader takes the numbers for text, as they are
rows[0][0] = rows[0][0][:17] + "X"
# the two whom the scenario asks about
rows[17][0], rows[17][4] = "990000195203041170", "alive"
rows[18][0], rows[18][4] = "990000194811230180", "deceased"
with open("data/resident_status.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id_no", "name", "household_city4", "hukou_type", "life_status", "updated_at"])
    writer.writerows(rows)

with open("data/protected_persons.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id_no", "life_status", "reason"])
    for row in rows[:200]:
        writer.writerow([row[0], row[4], random.choice(["witness", "minor", "court order"])])
