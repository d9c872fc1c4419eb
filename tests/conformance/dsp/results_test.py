"""The reader of the kit's output, on a saved run (sample.log) in which CN_C:01-01 and CAT:01-02 failed."""

import contextlib
import io
import unittest
from pathlib import Path

import plan
import results

SAMPLE = Path(__file__).with_name("sample.log").read_text()
PERFECT = (
    SAMPLE.replace("FAILED: ", "SUCCESSFUL: ")
    .replace("Passed tests: 63", "Passed tests: 65")
    .replace("Failed tests: 2", "Failed tests: 0")
)


def judged(output: str) -> tuple[int, str]:
    """The exit code, and the last line."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = results.main(output)
    return code, printed.getvalue().splitlines()[-1]


class Results(unittest.TestCase):
    def test_failed_tests_are_named_and_the_run_fails(self):
        self.assertEqual(results.faults(SAMPLE), ["CN_C:01-01 failed", "CAT:01-02 failed"])
        self.assertEqual(judged(SAMPLE), (1, "63 passed, 2 failed"))

    def test_a_perfect_run_passes(self):
        self.assertEqual(judged(PERFECT), (0, "65 passed, 0 failed"))

    def test_colours_do_not_matter(self):
        coloured = PERFECT.replace("SUCCESSFUL", "\x1b[32mSUCCESSFUL").replace("\n", "\x1b[0m\n")
        self.assertEqual(judged(coloured), (0, "65 passed, 0 failed"))

    def test_a_test_that_did_not_run_fails_the_run(self):
        without = PERFECT.replace("SUCCESSFUL: MET:01-01", "").replace("Passed tests: 65", "Passed tests: 64")
        self.assertEqual(results.faults(without), ["MET:01-01 did not run"])
        self.assertEqual(judged(without), (1, "64 passed, 0 failed"))

    def test_an_aborted_test_failed(self):
        self.assertEqual(judged(PERFECT.replace("SUCCESSFUL: MET:01-01", "ABORTED: MET:01-01"))[0], 1)

    def test_the_kit_has_to_count_as_its_lines_do(self):
        self.assertEqual(judged(PERFECT.replace("Failed tests: 0", "Failed tests: 1"))[0], 1)

    def test_a_run_cut_off_fails(self):
        self.assertEqual(judged(PERFECT.replace("Test run complete", ""))[0], 1)
        self.assertEqual(judged(""), (1, "0 passed, 0 failed"))


class Plan(unittest.TestCase):
    def test_it_has_the_67_tests_of_which_65_run(self):
        names = [test.name for test in plan.tests()]
        self.assertEqual((len(names), len(set(names)), len(plan.expected())), (67, 67, 65))

    def test_then_waits_for_where_our_own_step_leads(self):
        found = plan.steps("REQUESTED start, then suspend, then start")
        self.assertEqual([step.state for step in found], ["REQUESTED", "STARTED", "SUSPENDED"])
        self.assertEqual([step.after_own for step in found], [False, True, True])


if __name__ == "__main__":
    unittest.main()
