"""Reads what the kit printed: its exit code is 0 whatever happened.

    results.py KIT_LOG

Prints a line a test, and last `N passed, M failed`. Exits with 0 only if every test that can pass did, and none failed.
"""

import re
import sys
from pathlib import Path

import plan

TEST = r"([A-Z_]+:\d\d-\d\d)"


def read(output: str) -> dict[str, str]:
    """Each test that ran, in the kit's order, with what the kit said about it."""
    output = re.sub(r"\x1b\[[0-9;]*m", "", output)
    return {name: said for said, name in re.findall(rf"\b(SUCCESSFUL|FAILED|ABORTED): {TEST}\s*$", output, re.MULTILINE)}


def titles(output: str) -> dict[str, str]:
    return dict(re.findall(rf"Started: {TEST}: (.*?)\s*$", output, re.MULTILINE))


def faults(output: str) -> list[str]:
    """Why the run as a whole does not count; empty if it does."""
    ran = read(output)
    passed = sum(said == "SUCCESSFUL" for said in ran.values())
    found = [f"{name} did not run" for name in plan.expected() if name not in ran]
    found += [f"{name} failed" for name, said in ran.items() if said != "SUCCESSFUL"]
    for word, number in (("Passed", passed), ("Failed", len(ran) - passed)):
        own = re.findall(rf"{word} tests: (\d+)", output)
        if own != [str(number)]:
            found.append(f"the kit's own count of {word.lower()} tests is {own or 'missing'}, its lines say {number}")
    if "Test run complete" not in output:
        found.append("the run was cut off")
    return found


def main(output: str) -> int:
    ran, title, wrong = read(output), titles(output), faults(output)
    for name, said in ran.items():
        print("pass" if said == "SUCCESSFUL" else "FAIL", name, title.get(name, ""))
    for fault in wrong:
        print(fault)
    passed = sum(said == "SUCCESSFUL" for said in ran.values())
    print(f"{passed} passed, {len(ran) - passed} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).read_text(errors="replace")))
