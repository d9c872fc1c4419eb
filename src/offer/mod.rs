//! Datasets and offers: what a provider publishes, signed, and sealed where it is not for everyone.
//!
//! Owns the offer's formats (the signed object, the sealed one, the DCAT view of both), the steward's `offer.toml`,
//! and the in-memory view of the offers that stand. Does not own who may see them: `agreement::decide` says that.

mod file;
mod object;
mod row;
mod view;

pub use file::{Approval, Audience, ContractOnly, DatasetSection, OfferFile, OfferFileError};
pub use object::{
    DatasetDescription, Distribution, Extent, Offer, OfferError, OfferedPolicy, Sealing, seal, sealing_kid, unseal,
    verify,
};
pub use row::{LiveOffer, OfferRow, Offers, PREFIX, SignedOffer, key};
pub use view::{ViewError, entry, service};
