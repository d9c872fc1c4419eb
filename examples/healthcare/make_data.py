"""Makes the scenario's data: always the same. Nobody in it exists. Run it in this folder."""

import csv
import random

random.seed(20260301)
DRUGS = {"A10BA02": 40, "A10BB09": 18, "A10BK01": 14, "A10BJ06": 9, "A10AE04": 12}
CITIES = ["4401", "4403", "4404", "4406", "4413"]


def patient(prefix, number, drug):
    birth = f"{random.randint(1938, 1996)}-{random.randint(1, 12):02}-{random.randint(1, 28):02}"
    hba1c = round(min(13.9, max(4.8, random.gauss(7.4, 1.3))), 2)
    month = f"2025-{random.randint(1, 12):02}"
    return [f"{prefix}{number:05}", random.choice("FM"), birth, hba1c, drug, month, random.choice(CITIES)]


def cohort(path, prefix, count):
    drugs = random.choices(list(DRUGS), DRUGS.values(), k=count - 4)
    rows = [patient(prefix, 10000 + number, drug) for number, drug in enumerate(drugs)]
    # four patients who take what nobody else takes: a group that is too small
    rows += [patient(prefix, 10000 + count - 4 + number, "A10XX99") for number in range(4)]
    random.shuffle(rows)
    # one whose date of birth the scenario looks for
    rows[0][2] = "1951-07-14"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["pseudo_id", "sex", "birth_date", "hba1c", "drug_code", "visit_month", "city4"])
        writer.writerows(rows)
    return rows


one = cohort("data/diabetes_cohort_a.csv", "a", 1200)
cohort("data/diabetes_cohort_b.csv", "b", 900)

with open("data/variants.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["pseudo_id", "rsid", "genotype"])
    for row in one[:300]:
        writer.writerow([row[0], random.choice(["rs7903146", "rs1801282", "rs5219"]), random.choice(["CC", "CT", "TT"])])

# what the research company makes of it: the coefficients of a model
with open("data/risk_model.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["feature", "coefficient"])
    for feature in ["intercept", "sex_m", "birth_decade", *DRUGS]:
        writer.writerow([feature, f"{random.uniform(-1.5, 1.5):.4f}"])
