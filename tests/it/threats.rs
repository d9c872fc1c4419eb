//! What attackers try, besides the locks: to learn what isn't theirs, to fill the disk, to steer a terminal, to bring back
//! what was destroyed.

use std::{fs, path::Path, sync::Arc, time::Instant};

use counterseal::{cli::data_folder, exchange::UseRequest, time::SystemClock};
use serde_json::{Value, json};

use crate::{
    house::House,
    locks::{Actor, OPEN, pair_with, start, wanted},
};

fn size_of(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| if entry.path().is_dir() { size_of(&entry.path()) } else { entry.metadata().unwrap().len() })
        .sum()
}

async fn seal_for(provider: &Actor, dataset: &str, recipient: &Actor) {
    fs::write(data_folder(&provider.home).join("d.csv"), "id,age\n1,38\n").unwrap();
    fs::write(provider.home.join("p.cedar"), OPEN).unwrap();
    let offer = format!(
        "id = \"{dataset}\"\n[dataset]\nid = \"{dataset}\"\ntitle = \"Secret\"\nsource = \"d.csv\"\n[policy]\nfile = \"p.cedar\"\n\
         [audience]\nsealed_for = [\"{}\"]\n",
        recipient.did()
    );
    fs::write(provider.home.join("o.toml"), offer).unwrap();
    provider.node.exchange.publish(&provider.home.join("o.toml")).await.unwrap();
}

async fn catalog(reader: &Actor, provider: &Actor) -> Value {
    let body = json!({"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": "CatalogRequestMessage"});
    let url = format!("{}/2025-1/catalog/request", provider.node.exchange.base_url);
    reader.client(provider).post(url).json(&body).send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_recipients_catalogs_differ_in_nothing_but_their_own_sealed_entry() {
    let folder = tempfile::tempdir().unwrap();
    let provider = start(folder.path(), "p", Arc::new(SystemClock)).await;
    let readers = [
        start(folder.path(), "a", Arc::new(SystemClock)).await,
        start(folder.path(), "b", Arc::new(SystemClock)).await,
        start(folder.path(), "c", Arc::new(SystemClock)).await,
    ];
    for reader in &readers {
        provider.add(reader).await;
        reader.add(&provider).await;
    }
    provider.publish(OPEN).await;
    seal_for(&provider, "for-a", &readers[0]).await;
    seal_for(&provider, "for-b", &readers[1]).await;
    let mut seen = Vec::new();
    for (reader, own) in readers.iter().zip([Some("for-a"), Some("for-b"), None]) {
        let mut catalog = catalog(reader, &provider).await;
        assert!(!catalog.to_string().contains("Secret"), "a sealed offer's title is inside");
        let datasets = catalog["dataset"].as_array_mut().unwrap();
        let before = datasets.len();
        datasets.retain(|dataset| own.is_none_or(|own| dataset["@id"] != own));
        assert_eq!(before - datasets.len(), usize::from(own.is_some()));
        seen.push(catalog);
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2], "and one who has no sealed entry sees the rest, and no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_yours_takes_as_long_to_deny_as_what_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let provider = start(folder.path(), "p", Arc::new(SystemClock)).await;
    let (owner, outsider) = (
        start(folder.path(), "a", Arc::new(SystemClock)).await,
        start(folder.path(), "o", Arc::new(SystemClock)).await,
    );
    provider.add(&owner).await;
    provider.add(&outsider).await;
    seal_for(&provider, "for-a", &owner).await;
    let client = outsider.client(&provider);
    let ask = async |id: &str| {
        let url = format!("{}/2025-1/catalog/datasets/{id}", provider.node.exchange.base_url);
        let begun = Instant::now();
        let answer = client.get(url).send().await.unwrap();
        let took = begun.elapsed();
        (took, answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (mut theirs, mut nothing) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let (a, b) = (ask("for-a").await, ask("for-b").await);
        assert_eq!((a.1, b.1, a.2.replace("for-a", "for-b")), (404, 404, b.2));
        theirs.push(a.0);
        nothing.push(b.0);
    }
    theirs.sort();
    nothing.sort();
    let ratio = theirs[150].as_secs_f64() / nothing[150].as_secs_f64();
    assert!((0.6..1.7).contains(&ratio), "medians {:?} and {:?}", theirs[150], nothing[150]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_refusals_does_not_fill_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let provider = start(folder.path(), "p", Arc::new(SystemClock)).await;
    let outsider = start(folder.path(), "o", Arc::new(SystemClock)).await;
    let client = outsider.client(&provider);
    let before = size_of(&provider.home.join("store"));
    let ask = async |n: usize| {
        for _ in 0..n {
            let url = format!("{}/2025-1/catalog/datasets/d", provider.node.exchange.base_url);
            assert_eq!(client.get(url).send().await.unwrap().status().as_u16(), 403);
        }
    };
    tokio::join!(ask(2500), ask(2500), ask(2500), ask(2500));
    let home = provider.home.clone();
    provider.node.stop().await;
    let grown = size_of(&home.join("store")).saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes");
}

#[test]
fn a_partners_words_do_not_steer_our_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let (hospital, research) = crate::house::paired(folder.path());
    fs::write(hospital.data("d.csv"), "id,age\n1,38\n").unwrap();
    hospital.write("p.cedar", OPEN);
    let title = r"\u001b[2J\u001b]0;owned\u0007 safe \u202ednammoc";
    let offer = hospital.write(
        "o.toml",
        &format!(
            "id = \"o\"\n[dataset]\nid = \"d\"\ntitle = \"{title}\"\nsource = \"d.csv\"\n[policy]\nfile = \"p.cedar\"\n"
        ),
    );
    hospital.ok(&["offer", "publish", &offer]);
    for shown in [research.ok(&["catalog", &hospital.did]), hospital.ok(&["offer", "list"])] {
        assert!(!shown.chars().any(|c| c == '\u{1b}' || c == '\u{7}' || c == '\u{202e}'), "{shown:?}");
    }
    assert!(research.ok(&["catalog", &hospital.did]).contains("safe"));
    let _: &House = &hospital;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_is_restored_from_a_backup_does_not_open_what_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let request = UseRequest { of: "d".into(), purpose: "x".into(), action: "read".into(), application: None };
    consumer.node.exchange.use_copy(&request).await.unwrap();
    let copy = consumer.node.exchange.all_copies().await.unwrap().remove(0);
    let key = consumer.node.exchange.vault.folder(&copy.id).join("copy.key");
    let backup = fs::read(&key).unwrap();
    provider.node.exchange.revoke_agreement(&agreement, "over").await.unwrap();
    for _ in 0..400 {
        if !key.exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert!(!key.exists(), "the key went with the agreement");
    fs::write(&key, backup).unwrap();
    let refused = consumer.node.exchange.use_copy(&request).await.err().unwrap();
    assert!(refused.is("agreement-revoked"), "{refused}");
}
