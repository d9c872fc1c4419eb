//! What is looked at behind the scenes: receipts of both sides, and raw requests past a connector's manners.

use std::time::Duration;

use anyhow::Context as _;

use super::Actor;
use crate::{
    id::AgreementId,
    receipt::{Filter, Kind},
};

/// A client with `who`'s own certificate, past all the manners of its connector; and the provider's root.
pub fn client(who: &Actor, provider: &Actor) -> anyhow::Result<(reqwest::Client, String)> {
    let base = provider.node.exchange.base_url.clone();
    let target = crate::net::Target {
        peer: provider.did().clone().into(),
        seq: 0,
        origin: crate::net::Origin::Pinned(vec![provider.node.exchange.keys.certificate().spki]),
        endpoints: vec![base.clone()],
    };
    Ok((crate::net::Clients::new(who.node.exchange.keys.tls.clone()).client_for(&target, &base)?, base))
}

/// The kinds of an actor's receipts under this agreement, in order.
pub async fn kinds_of(actor: &Actor, agreement: &AgreementId) -> anyhow::Result<Vec<Kind>> {
    let filter = Filter { agreement: Some(agreement.clone()), ..Filter::default() };
    Ok(actor
        .node
        .exchange
        .receipts
        .list(&filter, 0, 1000)
        .await?
        .into_iter()
        .map(|stored| stored.receipt.kind)
        .collect())
}

/// Receipts of `own`'s that `other` should hold and doesn't yet: they travel by the outbox.
pub async fn missing(own: &Actor, other: &Actor, agreement: &AgreementId) -> anyhow::Result<usize> {
    const SENT: [Kind; 6] = [Kind::Released, Kind::Delivered, Kind::Opened, Kind::Used, Kind::Deleted, Kind::Revoked];
    let halves = other.node.exchange.receipts.halves(agreement).await?;
    let filter = Filter { agreement: Some(agreement.clone()), ..Filter::default() };
    let receipts = own.node.exchange.receipts.list(&filter, 0, 1000).await?;
    let sent = receipts.iter().filter(|stored| SENT.contains(&stored.receipt.kind));
    Ok(sent.filter(|stored| !halves.iter().any(|half| half.jws == stored.jws)).count())
}

/// Waits for what the outbox brings: milliseconds, on a machine with nothing else to do.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    for _ in 0..1000 {
        if holds().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("waited 20 s in vain until {what}")
}

/// The same line with one character of its receipt's signature changed.
pub fn flipped(line: &str) -> anyhow::Result<String> {
    let end = line.find("\",\"proof\"").context("a receipt has a proof")?;
    let mut text = line.to_owned().into_bytes();
    let at = end - 40;
    text[at] = if text[at] == b'A' { b'B' } else { b'A' };
    Ok(String::from_utf8(text)?)
}
