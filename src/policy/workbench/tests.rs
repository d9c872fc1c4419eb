//! Checks, cases, coverage, explanations and releases.
