"""Makes the scenario's data: always the same. Nobody in it exists. Run it in this folder."""

import csv
import hashlib
import random

random.seed(20260303)
BANDS = ["0-10k", "10k-50k", "50k-200k", "200k-1m", "1m+"]


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:24]


with open("data/credit_ref.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["customer_hash", "consent_ref", "loan_balance_band", "overdue_flag", "collateral_site", "as_of"])
    for number in range(400):
        writer.writerow([
            digest(f"customer {number}"), f"SC-{2026000 + number}", random.choices(BANDS, [30, 28, 22, 14, 6])[0],
            random.choices([0, 1], [93, 7])[0], f"plot {random.randint(100, 999)}, harbour zone {random.randint(1, 4)}",
            "2026-02-28",
        ])

with open("data/referral.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["patient_hash", "referred_for", "last_visit", "allergy_flag"])
    for number in range(240):
        writer.writerow([
            digest(f"patient {number}"), random.choice(["cardiology", "orthopaedics", "ophthalmology", "oncology"]),
            f"2026-{random.randint(1, 2):02}-{random.randint(1, 28):02}", random.choices([0, 1], [80, 20])[0],
        ])
