//! `counterseal init`

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use crate::{
    cli::output::Output,
    config::{self, Config},
    crypto::{Random, RandomExt as _, SystemRandom, b64},
    id::Did,
    identity::Keys,
    node::{STEWARD, TOKEN, write},
    time::{Clock as _, SystemClock, Timestamp},
};

/// Make a home: separate keys (0600), a TLS certificate with the DID in it, did.json, counterseal.toml.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  counterseal --home hospital init --name Hospital --domain data.hospital.example")]
pub struct Init {
    /// The name that partners see.
    #[arg(long)]
    name: String,
    /// The domain in the DID (did:web:<domain>); without one it is did:web:<name>.invalid, which needs no resolving.
    #[arg(long)]
    domain: Option<String>,
    /// Where partners reach us.
    #[arg(long, default_value = "127.0.0.1:8443")]
    partner: SocketAddr,
    /// Where the commands reach us.
    #[arg(long, default_value = "127.0.0.1:8444")]
    management: SocketAddr,
    /// The address by which partners reach us, where it is another than --partner.
    #[arg(long)]
    public_url: Option<String>,
    /// Where foreign connectors reach us, which present a token: plain HTTP, on loopback. Without it there is no such
    /// listener.
    #[arg(long)]
    plain: Option<SocketAddr>,
}

/// What a home is made of.
pub struct NewHome {
    /// The DID.
    pub did: Did,
    /// The name.
    pub name: String,
    /// Where partners reach us.
    pub partner: SocketAddr,
    /// Where the commands reach us.
    pub management: SocketAddr,
    /// The address by which partners reach us.
    pub public_url: Option<String>,
    /// Where foreign connectors reach us.
    pub plain: Option<SocketAddr>,
}

/// Runs the command.
pub fn run(home: &Path, args: Init, out: &Output) -> anyhow::Result<()> {
    let domain = match &args.domain {
        Some(domain) => domain.replace(':', "%3A"),
        None => {
            let name: String =
                args.name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let name = name.trim_matches('-').to_owned();
            if name.is_empty() {
                bail!("no DID can be made from the name `{}`: give --domain", args.name);
            }
            format!("{name}.invalid")
        }
    };
    let did = Did::parse(format!("did:web:{domain}")).with_context(|| format!("--domain {domain}"))?;
    let new = NewHome {
        did: did.clone(),
        name: args.name,
        partner: args.partner,
        management: args.management,
        public_url: args.public_url,
        plain: args.plain,
    };
    create(home, &new, &SystemRandom, SystemClock.now())?;
    out.show(&json!({ "home": home, "did": did }), |_| {
        format!(
            "{} is the home of {did}\n  keys/            one file a key, 0600: back them up, never share them\n  certs/tls.pem    the certificate\n  counterseal.toml the configuration\nPut datasets into {}/: nothing in the home is ever released\nNext: counterseal --home {0} serve",
            home.display(),
            data_folder(home).display()
        )
    });
    Ok(())
}

/// Where a new home's datasets lie: beside it, `<home>-data`.
pub fn data_folder(home: &Path) -> PathBuf {
    let mut name = home.file_name().unwrap_or_default().to_owned();
    name.push("-data");
    home.with_file_name(name)
}

/// Makes a home; refuses one that is there.
pub fn create(home: &Path, new: &NewHome, random: &dyn Random, now: Timestamp) -> anyhow::Result<()> {
    if home.join(config::FILE).exists() || home.join("keys").exists() {
        bail!("{} is a home already; nothing was changed", home.display());
    }
    let mut config = Config::new(new.did.clone(), new.name.clone());
    config.listen.partner = new.partner;
    config.listen.management = new.management;
    config.listen.public_url.clone_from(&new.public_url);
    config.listen.plain = new.plain;
    let data = data_folder(home);
    let name = data.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    config.sources.roots = vec![Path::new("..").join(name)];
    // read back as the node will read it, before anything is written
    let text = toml::to_string(&config)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(home).with_context(|| home.display().to_string())?;
    fs::create_dir_all(&data).with_context(|| data.display().to_string())?;
    Keys::create(home, &new.did, &config.certificate_hosts(), random, now)?;
    for name in [TOKEN, STEWARD] {
        write(home, name, format!("{}\n", b64(&random.array::<32>())).as_bytes(), 0o600)?;
    }
    let preface = "# Counterseal. Each value can be overridden by COUNTERSEAL_<SECTION>_<KEY>.\n# sources.roots: folders below which datasets may lie; relative to this file, never inside this home.\n\n";
    write(home, config::FILE, format!("{preface}{text}").as_bytes(), 0o600)?;
    Config::load(home, [])?;
    Ok(())
}
