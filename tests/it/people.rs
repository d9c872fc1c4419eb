//! Steps that people take, between two Counterseals; and partners who take none.

use std::{sync::Arc, time::Duration};

use counterseal::{
    exchange::{About, NegotiationRequest, Pending},
    id::{AgreementId, DatasetId},
    offer::Approval,
    protocol::{NegotiationState, TransferState, message::HTTP_PULL},
    time::{Clock, ManualClock, SystemClock},
};

use crate::locks::{Actor, OPEN, again, start_with, wanted};

async fn pair(folder: &std::path::Path, clock: Arc<dyn Clock>) -> (Actor, Actor) {
    let provider = start_with(folder, "p", clock.clone(), None, |_| {}).await;
    let consumer = start_with(folder, "c", clock, None, |config| config.approval.deadline_seconds = 100).await;
    provider.add(&consumer).await;
    consumer.add(&provider).await;
    std::fs::write(counterseal::cli::data_folder(&provider.home).join("d.csv"), "id,age\n1,38\n").unwrap();
    provider.publish_as_it_lies(OPEN).await;
    let offer = std::fs::read_to_string(provider.home.join("o.toml")).unwrap();
    std::fs::write(provider.home.join("o.toml"), format!("approval = \"manual\"\n{offer}")).unwrap();
    provider.node.exchange.publish(&provider.home.join("o.toml")).await.unwrap();
    (provider, consumer)
}

/// The one step that waits there.
async fn waiting(actor: &Actor) -> Pending {
    for _ in 0..400 {
        if let Some(pending) = actor.node.exchange.pending().await.unwrap().pop() {
            return pending;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("nothing waits");
}

async fn act(actor: &Actor, about: About, action: &str) {
    let pending = waiting(actor).await;
    assert!(pending.actions.contains(&action), "{action}: {pending:?}");
    actor.node.exchange.act(about, pending.pid.as_str(), action, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_on_both_sides_haggle_and_agree_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer) = pair(folder.path(), Arc::new(SystemClock)).await;
    let request = NegotiationRequest {
        approval: Approval::Manual,
        ..NegotiationRequest::about(provider.did().clone(), DatasetId::parse("d").unwrap())
    };
    let pid = consumer.node.exchange.negotiate(&request).await.unwrap();
    act(&provider, About::Negotiation, "offer").await;
    act(&consumer, About::Negotiation, "request").await;
    // a restart in the middle loses nothing
    let waits = waiting(&provider).await;
    assert_eq!(waits.state, "REQUESTED");
    let (home, ports) = (provider.home.clone(), provider.node.running.clone());
    provider.node.stop().await;
    let provider = again(&home, ports).await;
    assert_eq!(waiting(&provider).await.pid, waits.pid);
    act(&provider, About::Negotiation, "offer").await;
    act(&consumer, About::Negotiation, "accept").await;
    act(&provider, About::Negotiation, "agree").await;
    act(&consumer, About::Negotiation, "verify").await;
    act(&provider, About::Negotiation, "finalize").await;
    let end = consumer.node.exchange.negotiation_end(&pid, Duration::from_secs(20)).await.unwrap();
    assert_eq!(end.state, NegotiationState::Finalized, "{end:?}");
    assert!(consumer.node.exchange.pending().await.unwrap().is_empty());

    // and the transfer: started, suspended, resumed and completed by hand
    let agreement = end.agreement.unwrap();
    let transfer = begin(&consumer, &agreement).await;
    act(&provider, About::Transfer, "start").await;
    let theirs = provider.node.exchange.transfers().await.unwrap()[0].pid.clone();
    both(&provider, &consumer, TransferState::Started).await;
    for (who, pid, action, state) in [
        (&provider, &theirs, "suspend", TransferState::Suspended),
        (&provider, &theirs, "start", TransferState::Started),
        (&consumer, &transfer, "suspend", TransferState::Suspended),
        (&consumer, &transfer, "start", TransferState::Started),
        (&consumer, &transfer, "complete", TransferState::Completed),
    ] {
        who.node.exchange.act(About::Transfer, pid.as_str(), action, "because").await.unwrap();
        both(&provider, &consumer, state).await;
    }
    let late = provider.node.exchange.act(About::Transfer, theirs.as_str(), "start", "").await.unwrap_err();
    assert!(late.is("action-illegal"), "{late}");
}

async fn begin(consumer: &Actor, agreement: &AgreementId) -> counterseal::id::Pid {
    let row = consumer.node.exchange.agreement_row(agreement).await.unwrap();
    consumer.node.exchange.request_transfer(&row, HTTP_PULL, None, Approval::Manual).await.unwrap()
}

/// Until both sides show this state.
async fn both(provider: &Actor, consumer: &Actor, state: TransferState) {
    for side in [provider, consumer] {
        let mut shown = None;
        for _ in 0..400 {
            shown = side.node.exchange.transfers().await.unwrap().first().map(|transfer| transfer.state);
            if shown == Some(state) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        assert_eq!(shown, Some(state));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_waits_for_the_person_who_starts_its_transfer() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer) = pair(folder.path(), Arc::new(SystemClock)).await;
    let request = NegotiationRequest::about(provider.did().clone(), DatasetId::parse("d").unwrap());
    let pid = consumer.node.exchange.negotiate(&request).await.unwrap();
    act(&provider, About::Negotiation, "agree").await;
    act(&provider, About::Negotiation, "finalize").await;
    let agreement =
        consumer.node.exchange.negotiation_end(&pid, Duration::from_secs(20)).await.unwrap().agreement.unwrap();
    let (fetched, ()) = tokio::join!(consumer.fetch(wanted(&agreement)), act(&provider, About::Transfer, "start"));
    fetched.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_who_never_takes_a_step_is_not_waited_for_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let (provider, consumer) = pair(folder.path(), clock.clone()).await;
    let request = NegotiationRequest::about(provider.did().clone(), DatasetId::parse("d").unwrap());
    let pid = consumer.node.exchange.negotiate(&request).await.unwrap();
    let theirs = waiting(&provider).await.pid;
    clock.advance(Duration::from_secs(101));
    consumer.node.exchange.expire_pending().await.unwrap();
    let end = consumer.node.exchange.negotiation_end(&pid, Duration::ZERO).await.unwrap();
    assert!(end.ended.as_ref().unwrap().is("partner-silent"), "{end:?}");
    for _ in 0..400 {
        let end = provider.node.exchange.negotiation_end(&theirs, Duration::ZERO).await.unwrap();
        if let Some(why) = end.ended {
            assert!(why.is("partner-silent") && why.sentence.contains("no step"), "{why}");
            return;
        }
        clock.advance(Duration::from_millis(200));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the provider was not told");
}
