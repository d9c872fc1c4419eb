//! Derived data.

use crate::{
    error::Refusal,
    exchange::{Exchange},
};

impl Exchange {
    /// Destroys derived data.
    pub(super) async fn finish_derived(&self) -> Result<(), Refusal> {
        Ok(())
    }
}
