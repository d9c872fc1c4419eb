//! Data derived from copies: every parent's policy goes on deciding, here and where it is offered onward.

use std::{path::Path, sync::Arc, time::Duration};

use counterseal::{
    cli::data_folder,
    evidence::{Scope, verify},
    exchange::{DerivedRequest, Handed, Handing, NegotiationRequest, UseRequest},
    id::{AgreementId, DatasetId},
    receipt::{Commit, Kind},
    time::{ManualClock, SystemClock},
    vault::{CopyState, DerivedRow},
};

use crate::{
    applications::{asks, halves, read},
    evidence::trust,
    locks::{Actor, start, wanted},
};

const RESULT: &str = "region,cases\nnorth,3\nsouth,4\n";
const HAVE: &str = "@id(\"have\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\", Action::\"release\"], resource);\n";

/// Two providers, and one consumer that holds a copy of each one's dataset.
struct Scene {
    one: Actor,
    two: Actor,
    consumer: Actor,
    agreements: [AgreementId; 2],
    folder: std::path::PathBuf,
}

async fn scene(folder: &Path, clock: Arc<ManualClock>, first: &str, second: &str) -> Scene {
    let (one, two) = (start(folder, "one", clock.clone()).await, start(folder, "two", clock.clone()).await);
    let consumer = start(folder, "c", clock).await;
    let mut agreements = Vec::new();
    for (provider, dataset, uses) in [(&one, "a", first), (&two, "b", second)] {
        provider.add(&consumer).await;
        consumer.add(provider).await;
        publish(provider, dataset, &format!("{HAVE}{uses}")).await;
        let agreement = agree(&consumer, provider, dataset).await;
        consumer.fetch(wanted(&agreement)).await.unwrap();
        agreements.push(agreement);
    }
    std::fs::write(folder.join("result.csv"), RESULT).unwrap();
    Scene { one, two, consumer, agreements: agreements.try_into().unwrap(), folder: folder.to_owned() }
}

async fn publish(provider: &Actor, dataset: &str, policy: &str) {
    std::fs::write(data_folder(&provider.home).join("d.csv"), "id,age\n1,38\n2,52\n").unwrap();
    std::fs::write(provider.home.join("p.cedar"), policy).unwrap();
    let offer = format!(
        "id = \"o-{dataset}\"\n[dataset]\nid = \"{dataset}\"\ntitle = \"D\"\nsource = \"d.csv\"\n[policy]\nfile = \"p.cedar\"\n"
    );
    std::fs::write(provider.home.join("o.toml"), offer).unwrap();
    provider.node.exchange.publish(&provider.home.join("o.toml")).await.unwrap();
}

async fn agree(consumer: &Actor, provider: &Actor, dataset: &str) -> AgreementId {
    let request = NegotiationRequest::about(provider.did().clone(), DatasetId::parse(dataset).unwrap());
    let pid = consumer.node.exchange.negotiate(&request).await.unwrap();
    let view = consumer.node.exchange.negotiation_end(&pid, Duration::from_secs(20)).await.unwrap();
    view.agreement.unwrap_or_else(|| panic!("{:?}", view.ended))
}

impl Scene {
    async fn register(&self) -> Result<DerivedRow, String> {
        let request = DerivedRequest {
            file: self.folder.join("result.csv"),
            title: "Cases by region".into(),
            from: vec!["a".into(), "b".into()],
            purpose: "research".into(),
            id: Some(DatasetId::parse("rates").unwrap()),
            application: None,
        };
        let registered = self.consumer.node.exchange.register_derived(&request).await;
        registered.map_err(|refusal| refusal.code.as_str().to_owned())
    }

    async fn read(&self) -> Result<String, String> {
        let request = UseRequest { of: "rates".into(), purpose: "research".into(), ..asks("read", None) };
        read(&self.consumer, &request).await.map_err(|refusal| refusal.code.as_str().to_owned())
    }

    async fn state(&self) -> CopyState {
        self.consumer.node.exchange.all_derived().await.unwrap()[0].state
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(counterseal::time::Clock::now(&SystemClock)))
}

const USES: &str =
    "@id(\"use\") permit (principal, action in Action::\"use\", resource) when { context.purpose == \"research\" };";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_parent_decides_on_a_use_and_counts_it() {
    let folder = tempfile::tempdir().unwrap();
    let second = "@id(\"use\") permit (principal, action == Action::\"process\", resource);
        @id(\"twice\") permit (principal, action == Action::\"read\", resource) when {
          context.count < 2 && resource.parents == [\"a\", \"b\"] && context.dataRecord == 2 && context.dataField == [\"region\", \"cases\"] };";
    let scene = scene(folder.path(), clock(), USES, second).await;
    let row = scene.register().await.unwrap();
    let sealed = std::fs::read(scene.consumer.node.exchange.vault.folder(&row.copy).join("0.ece")).unwrap();
    assert!(!sealed.windows(5).any(|window| window == b"north"));
    assert_eq!(scene.consumer.count(Kind::Used).await, 2, "the making is a use of each parent");
    assert_eq!(scene.register().await.unwrap_err(), "dataset-taken");
    assert_eq!(scene.read().await.unwrap(), RESULT);
    assert_eq!(scene.read().await.unwrap(), RESULT);
    // the second's count is used up, the first would still allow it
    assert_eq!(scene.read().await.unwrap_err(), "policy-no-permit");
    assert_eq!(scene.consumer.count(Kind::Used).await, 6);
    // both providers see it
    for (provider, agreement) in [(&scene.one, &scene.agreements[0]), (&scene.two, &scene.agreements[1])] {
        let told = async {
            while halves(provider, agreement).await.iter().filter(|kind| *kind == "used").count() < 3 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
    }
    // a use for another purpose is the first's to refuse
    let sales = UseRequest { of: "rates".into(), purpose: "sales".into(), ..asks("process", None) };
    assert!(read(&scene.consumer, &sales).await.unwrap_err().is("policy-no-permit"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_parent_does_not_let_be_made_is_not_taken() {
    for (second, why) in [
        // making something of it is not permitted, or forbidden
        ("@id(\"r\") permit (principal, action == Action::\"read\", resource);", "policy-no-permit"),
        (
            "@id(\"r\") forbid (principal, action in [Action::\"process\", Action::\"compute\"], resource);",
            "policy-forbids",
        ),
        // making is, and then nothing that both would allow
        (
            "@id(\"r\") permit (principal, action == Action::\"compute\", resource) when { context.count < 1 };
             @id(\"s\") forbid (principal, action == Action::\"read\", resource);",
            "derived-empty",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let scene = scene(folder.path(), clock(), USES, second).await;
        assert_eq!(scene.register().await.unwrap_err(), why, "{second}");
        assert!(scene.consumer.node.exchange.all_derived().await.unwrap().is_empty());
        assert_eq!(scene.consumer.count(Kind::Used).await, 0, "nothing is spent");
    }
    // the connector's own keys are no result
    let folder = tempfile::tempdir().unwrap();
    let scene = scene(folder.path(), clock(), USES, USES).await;
    let mut request = DerivedRequest {
        file: scene.consumer.home.join("operator.token"),
        title: String::new(),
        from: vec!["a".into()],
        purpose: "research".into(),
        id: None,
        application: None,
    };
    let exchange = &scene.consumer.node.exchange;
    assert!(exchange.register_derived(&request).await.unwrap_err().is("derived-file"));
    request.from.clear();
    assert!(exchange.register_derived(&request).await.unwrap_err().is("derived-parents"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn derived_data_goes_when_a_parents_agreement_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene(folder.path(), clock(), USES, USES).await;
    let row = scene.register().await.unwrap();
    scene.read().await.unwrap();
    let exchange = &scene.consumer.node.exchange;
    // one's own deletion of a parent leaves it
    let given_up = UseRequest { of: "b".into(), ..asks("delete", None) };
    assert!(matches!(exchange.hand_over(&given_up, &Handing::default()).await.unwrap(), Handed::Deleted { .. }));
    exchange.finish_ended().await.unwrap();
    scene.read().await.unwrap();
    scene.one.node.exchange.revoke_agreement(&scene.agreements[0], "enough").await.unwrap();
    let gone = async {
        while scene.state().await == CopyState::Held {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    assert!(!exchange.vault.folder(&row.copy).join("copy.key").exists());
    assert_eq!(scene.read().await.unwrap_err(), "copy-without-key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn derived_data_goes_at_the_earliest_time_that_a_parent_demands() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let hours = |hours: u64| {
        format!(
            "@id(\"d{hours}\") @after(\"delete_within(PT{hours}H)\") permit (principal, action == Action::\"release\", resource);\n{USES}"
        )
    };
    let scene = scene(folder.path(), clock.clone(), &hours(5), &hours(3)).await;
    let row = scene.register().await.unwrap();
    clock.advance(Duration::from_secs(3 * 3600 - 60));
    scene.read().await.unwrap();
    clock.advance(Duration::from_secs(61));
    assert_eq!(scene.read().await.unwrap_err(), "copy-without-key", "before anybody has cleared it away");
    scene.consumer.node.exchange.finish_ended().await.unwrap();
    assert_eq!(scene.state().await, CopyState::Destroyed);
    assert!(!scene.consumer.node.exchange.vault.folder(&row.copy).join("copy.key").exists());
}

/// Offers the derived data onward.
async fn offer_onward(scene: &Scene) -> Result<(), String> {
    let consumer = &scene.consumer;
    std::fs::write(data_folder(&consumer.home).join("rates.csv"), RESULT).unwrap();
    std::fs::write(consumer.home.join("p.cedar"), "@id(\"mine\") permit (principal, action, resource);").unwrap();
    let offer = "id = \"onward\"\n[dataset]\nid = \"rates\"\ntitle = \"R\"\nsource = \"rates.csv\"\nderived_from = [\"rates\"]\n\
        derived_purpose = \"research\"\n[policy]\nfile = \"p.cedar\"\n";
    std::fs::write(consumer.home.join("o.toml"), offer).unwrap();
    let published = consumer.node.exchange.publish(&consumer.home.join("o.toml")).await;
    published.map(|_| ()).map_err(|refusal| refusal.code.as_str().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn derived_data_is_offered_onward_under_its_parents_forbids_and_floors() {
    let folder = tempfile::tempdir().unwrap();
    let first = format!(
        "@id(\"never\") forbid (principal, action, resource == Dataset::\"a\") when {{ context.purpose == \"marketing\" }};
         @id(\"made\") @during(\"limit(1); hash(id)\") permit (principal, action == Action::\"release\", resource);\n{USES}"
    );
    let scene = scene(folder.path(), clock(), &first, USES).await;
    assert_eq!(offer_onward(&scene).await.unwrap_err(), "derived-unknown");
    scene.register().await.unwrap();
    let before = scene.consumer.count(Kind::Used).await;
    offer_onward(&scene).await.unwrap();
    assert_eq!(scene.consumer.count(Kind::Used).await, before + 2, "going onward is a use of each parent");
    let live = scene.consumer.node.exchange.offers.get(&"onward".parse().unwrap()).unwrap();
    assert_eq!(live.row.offer.dataset.parents.iter().collect::<Vec<_>>(), ["a", "b"]);
    // a third party gets what is left, and never for marketing
    let agreement = agree(&scene.two, &scene.consumer, "rates").await;
    let marketing = counterseal::exchange::FetchRequest { purpose: "marketing".into(), ..wanted(&agreement) };
    let refusal = scene.two.fetch(marketing).await.unwrap_err();
    assert!(refusal.is("policy-forbids"), "{refusal}");
    scene.two.fetch(wanted(&agreement)).await.unwrap();
    let got = UseRequest { of: "rates".into(), ..asks("read", None) };
    assert_eq!(read(&scene.two, &got).await.unwrap().replace("\r", ""), "region,cases\nnorth,3\n");
    // and when the data is gone, so is the offer
    let gone = UseRequest { of: "rates".into(), ..asks("delete", None) };
    scene.consumer.node.exchange.hand_over(&gone, &Handing::default()).await.unwrap();
    assert!(
        scene
            .consumer
            .node
            .exchange
            .offers
            .get(&"onward".parse().unwrap())
            .is_none_or(|live| live.row.withdrawn.is_some())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_registrations_under_one_id_one_stands_and_the_other_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene(folder.path(), clock(), USES, USES).await;
    let (one, other) = tokio::join!(scene.register(), scene.register());
    let (kept, lost) = if one.is_ok() { (one, other) } else { (other, one) };
    assert_eq!(lost.unwrap_err(), "dataset-taken");
    assert_eq!(scene.read().await.unwrap(), RESULT);
    let rows = scene.consumer.node.exchange.all_derived().await.unwrap();
    assert_eq!((rows.len(), &rows[0].copy), (1, &kept.unwrap().copy));
    assert_eq!(scene.consumer.count(Kind::Used).await, 4, "the making is counted once, and the reading");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_of_destroyed_data_goes_when_ended_things_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene(folder.path(), clock(), USES, USES).await;
    scene.register().await.unwrap();
    offer_onward(&scene).await.unwrap();
    let exchange = &scene.consumer.node.exchange;
    let stands = || exchange.offers.get(&"onward".parse().unwrap()).is_some_and(|live| live.row.withdrawn.is_none());
    // on record as destroyed, and no more than that
    let row = exchange.all_derived().await.unwrap().remove(0);
    let mut commit = Commit::new();
    let gone = DerivedRow { state: CopyState::Destroyed, ..row.clone() };
    commit.put_blind(DerivedRow::key(&row.dataset), &gone).unwrap();
    exchange.committer.commit(commit).await.unwrap();
    assert!(stands());
    exchange.finish_ended().await.unwrap();
    assert!(!stands(), "nobody is offered what is gone");
    assert!(!exchange.vault.folder(&row.copy).join("copy.key").exists());
    // another offer of that id is none of it
    let offer = std::fs::read_to_string(scene.consumer.home.join("o.toml")).unwrap();
    std::fs::write(scene.consumer.home.join("o.toml"), offer.replace("derived_from = [\"rates\"]\n", "")).unwrap();
    exchange.publish(&scene.consumer.home.join("o.toml")).await.unwrap();
    exchange.finish_ended().await.unwrap();
    assert!(stands());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_parent_does_not_let_go_onward_is_not_offered() {
    let folder = tempfile::tempdir().unwrap();
    let second = format!(
        "{USES}\n@id(\"stays\") forbid (principal, action in [Action::\"distribute\", Action::\"policyTransmit\"], resource);"
    );
    let scene = scene(folder.path(), clock(), USES, &second).await;
    scene.register().await.unwrap();
    assert_eq!(offer_onward(&scene).await.unwrap_err(), "policy-forbids");
    assert!(scene.consumer.node.exchange.offers.get(&"onward".parse().unwrap()).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_on_derived_data_can_be_decided_again_from_the_receipts() {
    let folder = tempfile::tempdir().unwrap();
    let second = format!(
        "{USES}\n@id(\"marked\") forbid (principal, action, resource) when {{ resource.parents.contains(\"z\") }};"
    );
    let scene = scene(folder.path(), clock(), USES, &second).await;
    scene.register().await.unwrap();
    scene.read().await.unwrap();
    let sales = UseRequest { of: "rates".into(), purpose: "sales".into(), ..asks("read", None) };
    read(&scene.consumer, &sales).await.unwrap_err();
    for of in ["rates", "a"] {
        let gone = UseRequest { of: of.into(), ..asks("delete", None) };
        scene.consumer.node.exchange.hand_over(&gone, &Handing::default()).await.unwrap();
    }
    let bundle = scene.consumer.node.exchange.export(Scope::default(), true).await.unwrap();
    let verdict = verify(&bundle, &trust(&[&scene.one, &scene.two, &scene.consumer]));
    assert!(verdict.holds() && verdict.not_replayed == 0 && verdict.replayed >= 6, "{verdict:?}");
}
