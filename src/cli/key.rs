//! `counterseal key …`: rotate a key, renew the certificate. Both take effect at the connector's next start.

use std::path::Path;

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::{
    cli::output::Output,
    config::Config,
    crypto::SystemRandom,
    identity::{Keys, Rotating},
    node::Running,
    time::{Clock as _, SystemClock},
};

/// Our own keys.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a new key, which takes the old one's place at the next start; partners are told by a statement that the old
    /// signing key signs.
    Rotate {
        /// Which key.
        role: Role,
    },
    /// Make a new certificate for the TLS key that partners know; transfers that run have to be begun anew.
    RenewCertificate,
}

/// Which key.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// Signs offers, agreements, receipts and statements.
    Signing,
    /// Opens what partners seal for us.
    Sealing,
    /// Signs transfer tokens; those that are out become void.
    Token,
}

impl From<Role> for Rotating {
    fn from(role: Role) -> Self {
        match role {
            Role::Signing => Self::Signing,
            Role::Sealing => Self::Sealing,
            Role::Token => Self::Token,
        }
    }
}

/// Runs alone, on the home's files.
pub fn run(home: &Path, command: Key, out: &Output) -> anyhow::Result<()> {
    let config = Config::load(home, std::env::vars())?;
    let did = &config.participant.did;
    let next = match Running::load(home) {
        Some(_) => {
            format!("it takes effect when the connector is started again: counterseal --home {} serve", home.display())
        }
        None => format!("it takes effect at the next start: counterseal --home {} serve", home.display()),
    };
    match command {
        Key::Rotate { role } => {
            let role = Rotating::from(role);
            Keys::prepare_rotation(home, role, &SystemRandom)?;
            out.show(&json!({ "prepared": role.as_str() }), |_| {
                format!("a new {} key was made; {next}\nBack up the keys folder again after that.", role.as_str())
            });
        }
        Key::RenewCertificate => {
            let keys =
                Keys::renew_certificate(home, did, &config.certificate_hosts(), &SystemRandom, SystemClock.now())?;
            let ends = keys.certificate().not_after;
            out.show(&json!({ "certificateEnds": ends }), |_| format!("the certificate is valid until {ends}; {next}"));
        }
    }
    Ok(())
}
