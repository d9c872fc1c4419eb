//! Tokens: those that we issue, made anew at each delivery; those that we were given, kept in files.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    time::Duration,
};

use crate::{
    crypto::{RandomExt, jws::Jws},
    error::Refusal,
    exchange::{
        Exchange, refuse,
        rows::{Endpoint, TokenSpec, TransferRow},
    },
    id::ParticipantId,
    identity::{Partner, token},
    protocol::message::DataAddress,
};

/// How long a transfer token is good.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

impl Exchange {
    /// A token as its spec says.
    pub(in crate::exchange) fn token(&self, spec: &TokenSpec, peer: &ParticipantId) -> Result<Jws, Refusal> {
        token::issue(&self.keys, peer, spec.certificate, &spec.transfer, &spec.jti, spec.issued, TOKEN_TTL)
            .map_err(refuse("internal"))
    }

    /// Keeps the token of a data address in a file of its own, 0600; the store holds its name. A foreign provider's data
    /// is fetched by whoever asked for it, and its address is none of ours to keep.
    pub(super) fn keep_token(&self, partner: &Partner, data: &DataAddress) -> Result<Option<Endpoint>, Refusal> {
        if partner.certificate().is_none() {
            return Ok(None);
        }
        let (Some(url), Some(token)) = (data.url(), data.token()) else { return Ok(None) };
        if !partner.target().allows(url) {
            return Err(Refusal::new(
                "endpoint-not-pinned",
                "the data address is not at the endpoint in the provider's participant statement",
            ));
        }
        let name = self.keep_secret(token)?;
        Ok(Some(Endpoint { url: url.to_owned(), token: name }))
    }

    /// Writes a secret to a file of its own, 0600; gives its name.
    pub(in crate::exchange) fn keep_secret(&self, secret: &str) -> Result<String, Refusal> {
        let name: String = self.random.array::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        (|| {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.tokens)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.tokens.join(&name))?;
            file.write_all(secret.as_bytes())?;
            file.sync_all()
        })()
        .map_err(|error: std::io::Error| Refusal::new("disk-failed", format!("a token can't be kept: {error}")))?;
        Ok(name)
    }

    /// The token of a transfer.
    pub(in crate::exchange) fn kept_token(&self, endpoint: &Endpoint) -> Result<String, Refusal> {
        fs::read_to_string(self.tokens.join(&endpoint.token)).map_err(refuse("token-lost"))
    }

    pub(super) fn forget_token(&self, row: &TransferRow) {
        if let Some(endpoint) = &row.endpoint {
            let _ = fs::remove_file(self.tokens.join(&endpoint.token));
        }
    }
}
