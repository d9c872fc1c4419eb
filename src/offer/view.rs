//! Offers as the Dataspace Protocol's catalog shows them (DCAT).

use crate::{
    id::Sha256,
    offer::Offer,
    protocol::{
        BASE,
        message::{
            Address, AddressError, DataService, Dataset, Distribution, Offer as DspOffer, PolicyError, Rules, Service,
        },
    },
};

/// Why an offer can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Our own address is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its ODRL view is none.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The data service at this root.
pub fn service(root: &str) -> Result<DataService, ViewError> {
    Ok(DataService { id: format!("{root}{BASE}"), endpoint_url: Address::parse(&format!("{root}{BASE}"))? })
}

/// A catalog entry. A sealed offer's has no title, no description: the catalog is plain text to whoever logs it.
pub fn entry(offer: &Offer, hash: Sha256, sealed: bool, root: &str) -> Result<Dataset, ViewError> {
    let shown = |text: &String| (!sealed && !text.is_empty()).then(|| text.clone());
    let service = service(root)?;
    Ok(Dataset {
        id: offer.dataset.id.clone(),
        title: shown(&offer.dataset.title),
        description: shown(&offer.dataset.description),
        has_policy: vec![DspOffer { id: offer.id.clone(), rules: Rules::from_odrl(&offer.policy.odrl)? }],
        distribution: offer
            .dataset
            .distributions
            .iter()
            .map(|distribution| Distribution {
                format: distribution.format.clone(),
                access_service: Service::Inline(service.clone()),
            })
            .collect(),
        offer: None,
        offer_sha256: Some(hash),
    })
}
