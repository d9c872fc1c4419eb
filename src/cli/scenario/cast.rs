//! Who plays: a connector for each party, its data, and whom it knows.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use anyhow::Context as _;

use super::format::{Party, Scenario};
use crate::{
    cli::{data_folder, stage::Actor},
    identity::Attributes,
    time::Clock,
};

/// Files that are data; a folder's others are its offers, policies and texts.
const DATA: [&str; 4] = ["csv", "jsonl", "json", "parquet"];

/// Makes and starts a connector for each party below this folder, hands each the scenario's data, and pairs them.
pub async fn assemble(
    scenario: &Scenario,
    folder: &Path,
    clock: &Arc<impl Clock + 'static>,
) -> anyhow::Result<BTreeMap<String, Actor>> {
    let mut actors = BTreeMap::new();
    for party in &scenario.parties {
        let started = Actor::start(folder, &party.name, &party.title, clock.clone()).await;
        let actor = started.with_context(|| format!("party `{}`", party.name))?;
        hand_data(&scenario.folder, &data_folder(&actor.home))?;
        actors.insert(party.name.clone(), actor);
    }
    for party in &scenario.parties {
        for other in scenario.parties.iter().filter(|other| other.name != party.name && party.knows(other)) {
            actors[&party.name].add(&actors[&other.name], recorded(other)).await?;
        }
    }
    Ok(actors)
}

/// What the others record of a party.
fn recorded(party: &Party) -> Attributes {
    Attributes {
        jurisdiction: party.jurisdiction.clone(),
        roles: party.roles.clone(),
        certifications: party.certifications.clone(),
        groups: party.groups.clone(),
        physical_address: party.physical_address.clone(),
    }
}

/// Copies a folder's data files, those of folders in it under the same path.
fn hand_data(from: &Path, to: &Path) -> anyhow::Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("{} can't be read", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            hand_data(&path, &target)?;
        } else if path.extension().is_some_and(|extension| DATA.iter().any(|data| extension == *data)) {
            fs::create_dir_all(to)?;
            fs::copy(&path, &target).with_context(|| format!("{} can't be copied", path.display()))?;
        }
    }
    Ok(())
}
