//! Filled in by the tests of a whole exchange.
