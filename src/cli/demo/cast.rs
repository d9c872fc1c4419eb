//! Who plays: three connectors, each in its own home.

use std::{fs, path::Path, sync::Arc};

use crate::{
    cli::{data_folder, refused, stage::Actor},
    identity::Attributes,
    time::SystemClock,
};

/// All three.
pub struct Cast {
    pub hospital: Actor,
    pub research: Actor,
    pub outsider: Actor,
}

impl Cast {
    /// Makes and starts all three below this folder.
    pub async fn assemble(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            hospital: Actor::start(folder, "hospital", "Hospital", Arc::new(SystemClock)).await?,
            research: Actor::start(folder, "research", "Research Company", Arc::new(SystemClock)).await?,
            outsider: Actor::start(folder, "outsider", "Outsider", Arc::new(SystemClock)).await?,
        })
    }

    pub const fn actors(&self) -> [&Actor; 3] {
        [&self.hospital, &self.research, &self.outsider]
    }

    pub async fn stop(self) {
        tokio::join!(self.hospital.node.stop(), self.research.node.stop(), self.outsider.node.stop());
    }
}

/// In these groups, and nothing else is known of it.
pub fn groups(groups: &[&str]) -> Attributes {
    Attributes { groups: groups.iter().map(|group| (*group).to_owned()).collect(), ..Attributes::default() }
}

/// Publishes a dataset under a policy.
pub async fn publish(actor: &Actor, name: &str, offer: &str, policy: &str, data: &str) -> anyhow::Result<()> {
    fs::write(data_folder(&actor.home).join(format!("{name}.csv")), data)?;
    fs::write(actor.home.join(format!("{name}.cedar")), policy)?;
    let file = actor.home.join(format!("{name}.toml"));
    fs::write(&file, offer)?;
    actor.node.exchange.publish(&file).await.map_err(refused).map(|_| ())
}
