"""Writes the synthetic data of this scenario, the same at each run: python3 make_data.py"""

import csv
import random
from pathlib import Path

HERE = Path(__file__).parent
random.seed(33)

with open(HERE / "path_slides.csv", "w", newline="") as file:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow("slide_id stain organ label annotator_id double_read dicom_uri".split())
    for number in range(1, 301):
        rows.writerow([
            f"SL{number:05}",
            random.choice(["HE", "HE", "HE", "IHC", "PAS"]),
            random.choice(["lung", "liver", "stomach", "colon"]),
            random.choices(["benign", "atypical", "malignant"], [6, 1, 3])[0],
            f"annot-{random.randint(1, 9)}",
            random.choice(["true", "true", "false"]),
            f"dicom://archive.invalid/SL{number:05}",
        ])

# A result of training: what the model gets right, by organ.
with open(HERE / "evaluation.csv", "w", newline="") as file:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["organ", "auc"])
    rows.writerows([["lung", 0.94], ["liver", 0.91], ["stomach", 0.9], ["colon", 0.93]])
