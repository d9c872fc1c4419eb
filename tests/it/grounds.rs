//! What has to be done before a release, what is owed after it, and what is counted: each lock both ways.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use counterseal::{
    agreement::{AgreementState, Approver},
    exchange::{ConsentBody, Enrolment, FetchRequest, First, Handing, NewApprover, PaymentBody, UseRequest, With},
    id::{AgreementId, DatasetId, ParticipantId},
    receipt::{Filter, Kind},
    time::{Clock, ManualClock, SystemClock},
};

use crate::locks::{Actor, OPEN, pair_with, wanted};

fn policy(annotations: &str, condition: &str) -> String {
    let when = if condition.is_empty() { String::new() } else { format!("when {{ {condition} }}") };
    format!(
        "@id(\"see\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\"], resource);
@id(\"get\") {annotations} permit (principal, action == Action::\"release\", resource) {when};
@id(\"read\") permit (principal, action == Action::\"read\", resource);"
    )
}

fn with(agreement: &AgreementId, with: With) -> FetchRequest {
    FetchRequest { with, another: true, ..wanted(agreement) }
}

fn texts(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// Makes an approver; gives who they are, as their token says.
async fn approver(actor: &Actor, name: &str, roles: &[&str], participant: Option<ParticipantId>) -> Approver {
    let new = NewApprover { name: name.into(), roles: texts(roles), participant };
    let token = actor.node.exchange.add_approver(&new).await.unwrap();
    actor.node.exchange.approver_of(&token).await.unwrap().unwrap()
}

async fn read_copy(consumer: &Actor) -> String {
    let request = UseRequest { of: "d".into(), purpose: "x".into(), action: "read".into(), application: None };
    let mut used = consumer.node.exchange.use_copy(&request).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(block) = used.data.recv().await {
        bytes.extend_from_slice(&block.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_waits_for_the_approval_of_exactly_this_request_and_uses_it_up() {
    let folder = tempfile::tempdir().unwrap();
    let text = policy("@before(\"approve(board)\") @during(\"hash(id)\")", "");
    let (provider, consumer, agreement) = pair_with(folder.path(), &text, Arc::new(SystemClock)).await;
    let refusal = consumer.fetch(wanted(&agreement)).await.unwrap_err();
    assert!(refusal.is("release-conditional") && refusal.sentence.contains("`board`"), "{refusal}");
    assert_eq!((provider.count(Kind::Conditional).await, provider.count(Kind::Released).await), (1, 0));
    // asked again, it is the same request: one approval waits, one receipt
    assert!(consumer.fetch(wanted(&agreement)).await.unwrap_err().is("release-conditional"));
    assert_eq!(provider.count(Kind::Conditional).await, 1);
    let waiting = provider.node.exchange.approvals().await.unwrap();
    assert_eq!((waiting.len(), waiting[0].role.as_str(), waiting[0].object.purpose.as_str()), (1, "board", "research"));

    let id = &waiting[0].id;
    let exchange = &provider.node.exchange;
    let other = approver(&provider, "clerk", &["archive"], None).await;
    assert!(exchange.decide_approval(&other, id, None).await.unwrap_err().is("approver-role"));
    let own = approver(&provider, "theirs", &["board"], Some(consumer.did().clone().into())).await;
    assert!(exchange.decide_approval(&own, id, None).await.unwrap_err().is("approval-by-requester"));
    let board = approver(&provider, "dr-li", &["board"], None).await;
    assert!(exchange.decide_approval(&board, "urn:uuid:nothing", None).await.unwrap_err().is("approval-unknown"));
    exchange.decide_approval(&board, id, None).await.unwrap();
    assert!(exchange.decide_approval(&board, id, None).await.unwrap_err().is("approval-decided"));
    assert_eq!(provider.count(Kind::Approved).await, 1);

    // another purpose, or part, is another request: this approval is not for it
    let purpose = FetchRequest { purpose: "marketing".into(), ..wanted(&agreement) };
    assert!(consumer.fetch(purpose).await.unwrap_err().is("release-conditional"));
    let part = With { fields: Some(texts(&["age"])), ..With::default() };
    assert!(
        consumer.fetch(FetchRequest { with: part, ..wanted(&agreement) }).await.unwrap_err().is("release-conditional")
    );
    assert_eq!(provider.count(Kind::Released).await, 0);
    consumer.fetch(wanted(&agreement)).await.unwrap();
    assert_eq!(provider.count(Kind::Released).await, 1);
    // used once: the next request needs its own
    assert!(
        consumer
            .fetch(FetchRequest { another: true, ..wanted(&agreement) })
            .await
            .unwrap_err()
            .is("release-conditional")
    );
    assert_eq!(provider.count(Kind::Released).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_was_refused_or_ran_out_lets_nothing_through() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let text = policy("@before(\"approve(board)\")", "");
    let (provider, consumer, agreement) = pair_with(folder.path(), &text, clock.clone()).await;
    let board = approver(&provider, "dr-li", &["board"], None).await;
    let exchange = &provider.node.exchange;
    assert!(consumer.fetch(wanted(&agreement)).await.unwrap_err().is("release-conditional"));
    let id = exchange.approvals().await.unwrap()[0].id.clone();
    exchange.decide_approval(&board, &id, Some("another matter")).await.unwrap();
    let refusal = consumer.fetch(wanted(&agreement)).await.unwrap_err();
    assert!(refusal.is("approval-refused") && refusal.sentence.contains("another matter"), "{refusal}");

    let another = || FetchRequest { another: true, ..wanted(&agreement) };
    assert!(consumer.fetch(another()).await.unwrap_err().is("release-conditional"));
    let open = exchange.approvals().await.unwrap().into_iter().find(|one| one.id != id).unwrap();
    exchange.decide_approval(&board, &open.id, None).await.unwrap();
    clock.advance(Duration::from_secs(400 * 24 * 3600));
    assert!(exchange.approvals().await.unwrap().is_empty(), "its time is over");
    assert_eq!(provider.count(Kind::Released).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consent_that_is_withdrawn_ends_what_rested_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = policy("@before(\"consent(credit)\")", "");
    let (provider, consumer, agreement) = pair_with(folder.path(), &text, Arc::new(SystemClock)).await;
    let refusal = consumer.fetch(wanted(&agreement)).await.unwrap_err();
    assert!(refusal.is("release-conditional") && refusal.sentence.contains("credit"), "{refusal}");
    let body = |name: &str| ConsentBody {
        name: name.into(),
        participant: consumer.did().clone().into(),
        dataset: DatasetId::parse("d").unwrap(),
        reference: "archive/1".into(),
        until: None,
    };
    let exchange = &provider.node.exchange;
    exchange.record_consent(&body("other")).await.unwrap();
    assert!(consumer.fetch(wanted(&agreement)).await.unwrap_err().is("release-conditional"), "another consent");
    exchange.record_consent(&body("credit")).await.unwrap();
    consumer.fetch(wanted(&agreement)).await.unwrap();
    assert!(read_copy(&consumer).await.starts_with("id,age"));

    assert!(exchange.withdraw_consent(&body("nothing")).await.unwrap_err().is("consent-unknown"));
    assert!(exchange.withdraw_consent(&body("other")).await.unwrap().is_empty(), "nothing rests on that one");
    assert_eq!(exchange.withdraw_consent(&body("credit")).await.unwrap(), std::slice::from_ref(&agreement));
    for _ in 0..200 {
        if consumer.node.exchange.agreement_row(&agreement).await.unwrap().state == AgreementState::Revoked {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let request = UseRequest { of: "d".into(), purpose: "x".into(), action: "read".into(), application: None };
    assert!(consumer.node.exchange.use_copy(&request).await.unwrap_err().is("agreement-revoked"));
    let again = consumer.fetch(FetchRequest { another: true, ..wanted(&agreement) }).await.unwrap_err();
    assert!(again.is("agreement-revoked"), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_accepted_word_for_word_and_a_code_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let text = policy("@before(\"accept('no re-identification'); second_factor\")", "");
    let (provider, consumer, agreement) = pair_with(folder.path(), &text, clock.clone()).await;
    let enrolment = Enrolment { participant: consumer.did().clone().into(), person: "wang".into() };
    let uri = provider.node.exchange.enrol(&enrolment).await.unwrap();
    let secret = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap();
    let codes = totp_rs::Builder::new().with_secret(totp_rs::Secret::try_from_base32(secret).unwrap()).build().unwrap();
    let code = |clock: &ManualClock| codes.generate(clock.now().seconds() as u64).to_string();
    let shown = |accept: &str, person: &str, code: String| With {
        accepts: texts(&[accept]),
        person: Some(person.into()),
        code: Some(code),
        ..With::default()
    };
    let right = "no re-identification";
    let refusal =
        consumer.fetch(with(&agreement, shown("No re-identification", "wang", code(&clock)))).await.unwrap_err();
    assert!(refusal.is("release-conditional") && refusal.sentence.contains(right), "{refusal}");
    let wrong = |refusal: counterseal::error::Refusal| assert!(refusal.is("second-factor-wrong"), "{refusal}");
    wrong(consumer.fetch(with(&agreement, shown(right, "wang", "000000".into()))).await.unwrap_err());
    wrong(consumer.fetch(with(&agreement, shown(right, "li", code(&clock)))).await.unwrap_err());
    let used = code(&clock);
    consumer.fetch(with(&agreement, shown(right, "wang", used.clone()))).await.unwrap();
    wrong(consumer.fetch(with(&agreement, shown(right, "wang", used))).await.unwrap_err());
    clock.advance(Duration::from_secs(60));
    consumer.fetch(with(&agreement, shown(right, "wang", code(&clock)))).await.unwrap();
    assert_eq!(provider.count(Kind::Released).await, 2);
    // guessing ends soon
    clock.advance(Duration::from_secs(60));
    for _ in 0..5 {
        wrong(consumer.fetch(with(&agreement, shown(right, "wang", "000000".into()))).await.unwrap_err());
    }
    let locked = consumer.fetch(with(&agreement, shown(right, "wang", code(&clock)))).await.unwrap_err();
    assert!(locked.is("second-factor-locked"), "{locked}");
    let everything = std::fs::read_to_string(provider.home.join("counterseal.toml")).unwrap();
    assert!(!everything.contains(secret) && !in_files(&provider.home, secret.as_bytes()), "the secret is kept sealed");
}

fn in_files(folder: &Path, wanted: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return in_files(&path, wanted);
        }
        std::fs::read(&path).is_ok_and(|bytes| bytes.windows(wanted.len()).any(|window| window == wanted))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_deleted_in_time_and_the_provider_sees_it_or_that_it_is_overdue() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let text = policy("@after(\"delete_within(PT3H); report(PT1H)\")", "");
    let (provider, consumer, agreement) = pair_with(folder.path(), &text, clock.clone()).await;
    assert_eq!(
        provider.node.exchange.agreement_row(&agreement).await.unwrap().agreement.duties,
        ["delete_within(PT3H)", "report(PT1H)"]
    );
    consumer.fetch(wanted(&agreement)).await.unwrap();
    read_copy(&consumer).await;
    let owed = provider.node.exchange.duties().await.unwrap();
    assert_eq!((owed.len(), owed[0].overdue.len(), owed[0].deleted), (1, 0, None));
    clock.advance(Duration::from_secs(3601));
    consumer.node.exchange.do_duties().await.unwrap();
    let until = async |done: fn(&counterseal::exchange::DutyView) -> bool| {
        for _ in 0..200 {
            if done(&provider.node.exchange.duties().await.unwrap()[0]) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    };
    assert!(until(|duty| duty.reported.is_some()).await);
    let filter = Filter { kind: Some(Kind::Reported), ..Filter::default() };
    let reported = consumer.node.exchange.receipts.list(&filter, 0, 10).await.unwrap();
    let jws = reported[0].jws.as_str().split('.').nth(1).unwrap();
    let payload: serde_json::Value = serde_json::from_slice(&counterseal::crypto::unb64(jws).unwrap()).unwrap();
    assert_eq!(payload["usage"]["read"], 1);

    clock.advance(Duration::from_secs(7200));
    consumer.node.exchange.do_duties().await.unwrap();
    let copy = consumer.node.exchange.all_copies().await.unwrap().remove(0);
    assert!(!consumer.node.exchange.vault.folder(&copy.id).join("copy.key").exists());
    assert!(until(|duty| duty.deleted.is_some() && duty.overdue.is_empty()).await);
    assert_eq!(consumer.count(Kind::Deleted).await, 1);

    // a consumer that does nothing is seen not to
    consumer.fetch(FetchRequest { another: true, ..wanted(&agreement) }).await.unwrap();
    consumer.node.stop().await;
    clock.advance(Duration::from_secs(3 * 3600 + 301));
    let overdue = &provider.node.exchange.duties().await.unwrap()[0].overdue;
    assert_eq!(overdue, &["delete_within(PT3H)", "report(PT1H)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_fewer_columns_and_rows_gets_them_and_one_for_more_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = policy(
        "@during(\"match(id); keep(age)\")",
        "[\"age\"].containsAll(context.dataField) && context.valueExpression != \"\"",
    );
    let (provider, consumer, agreement) = pair_with(folder.path(), &text, Arc::new(SystemClock)).await;
    let ask = |fields: &[&str], filter: &str| {
        let fields = (!fields.is_empty()).then(|| texts(fields));
        with(&agreement, With { fields, filter: (!filter.is_empty()).then(|| filter.into()), ..With::default() })
    };
    for (fields, filter, code) in [
        (&["id", "age"][..], "id = 1", "policy-no-permit"),
        (&["age"], "", "policy-no-permit"),
        (&["ages"], "id = 1", "request-fields"),
        (&["age"], "id = 1 or age > 3", "request-fields"),
        (&["age"], "age > 3", "request-fields"),
        (&["age"], "id = 1; drop table x", "request-fields"),
    ] {
        let refusal = consumer.fetch(ask(fields, filter)).await.unwrap_err();
        assert!(refusal.is(code), "{fields:?} {filter}: {refusal}");
    }
    assert_eq!(provider.count(Kind::Released).await, 0);
    consumer.fetch(ask(&["age"], "id = 2")).await.unwrap();
    assert_eq!(read_copy(&consumer).await, "age\r\n52\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_spent_is_counted_by_agreement_by_subject_and_by_year() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let text = policy(
        "@during(\"quota(3); drop(id)\")",
        "context.subject.year.count < 2 && context.frequency.minute < 1 && context.spent.total.bytes < 1000",
    );
    let (provider, consumer, first) = pair_with(folder.path(), &text, clock.clone()).await;
    let second = consumer.agree(&provider).await;
    let tomorrow = clock.now().plus(Duration::from_secs(24 * 3600));
    let year = counterseal::time::Zone::BEIJING.civil(tomorrow).periods[4];
    clock.set(counterseal::time::Timestamp::parse(&format!("{year}-12-31T12:00:00+08:00")).unwrap());
    let another = |agreement: &AgreementId| FetchRequest { another: true, ..wanted(agreement) };
    consumer.fetch(another(&first)).await.unwrap();
    let row = provider.node.exchange.agreement_row(&first).await.unwrap();
    assert_eq!((row.releases.total.count, row.releases.total.records, row.releases.total.bytes), (1, 2, 13), "settled");
    assert!(consumer.fetch(another(&first)).await.unwrap_err().is("policy-no-permit"), "twice in a minute");
    clock.advance(Duration::from_secs(61));
    consumer.fetch(another(&second)).await.unwrap();
    clock.advance(Duration::from_secs(61));
    assert!(consumer.fetch(another(&first)).await.unwrap_err().is("policy-no-permit"), "the subject's third this year");
    clock.advance(Duration::from_secs(24 * 3600));
    consumer.fetch(another(&first)).await.unwrap();
    assert_eq!(read_copy(&consumer).await.lines().count(), 2, "one of three was left of the quota");
    clock.advance(Duration::from_secs(61));
    assert!(consumer.fetch(another(&first)).await.unwrap_err().is("quota-used-up"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_on_record_opens_what_costs_money() {
    let folder = tempfile::tempdir().unwrap();
    let text = policy("", "context.payAmount.greaterThanOrEqual(decimal(\"100.0\")) && context.payReference != \"\"");
    let (provider, consumer, agreement) = pair_with(folder.path(), &text, Arc::new(SystemClock)).await;
    assert!(consumer.fetch(wanted(&agreement)).await.unwrap_err().is("policy-no-permit"));
    let pay = |amount: &str, currency: &str| PaymentBody {
        amount: amount.into(),
        currency: currency.into(),
        reference: "2026-0117".into(),
    };
    let exchange = &provider.node.exchange;
    for (body, code) in [
        (pay("-1", "CNY"), "payment-amount"),
        (pay("1e3", "CNY"), "payment-amount"),
        (pay("1", "yuan"), "payment-currency"),
    ] {
        assert!(exchange.record_payment(&agreement, &body).await.unwrap_err().is(code), "{body:?}");
    }
    exchange.record_payment(&agreement, &pay("99.99", "CNY")).await.unwrap();
    assert!(consumer.fetch(wanted(&agreement)).await.unwrap_err().is("policy-no-permit"));
    exchange.record_payment(&agreement, &pay("100.00", "CNY")).await.unwrap();
    consumer.fetch(wanted(&agreement)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixty_four_who_race_for_the_last_use_one_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = "@id(\"see\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\", Action::\"release\"], resource);
@id(\"last\") permit (principal, action == Action::\"read\", resource) when { context.count < 1 };";
    let (_provider, consumer, agreement) = pair_with(folder.path(), text, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let request = UseRequest { of: "d".into(), purpose: "x".into(), action: "read".into(), application: None };
    let racers = (0..64).map(|_| {
        let (exchange, request) = (consumer.node.exchange.clone(), request.clone());
        tokio::spawn(async move { exchange.use_copy(&request).await.map(|_| ()) })
    });
    let results = futures_util::future::join_all(racers).await;
    assert_eq!(results.iter().filter(|result| result.as_ref().unwrap().is_ok()).count(), 1);
    assert_eq!(consumer.count(Kind::Used).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_says_whether_a_clause_may_be_nobodys_and_a_consumer_whether_it_takes_one() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, _) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    let publish = async |policy: &str, rest: &str| {
        std::fs::write(provider.home.join("p.cedar"), policy).unwrap();
        let offer = format!(
            "id = \"o\"\n[dataset]\nid = \"d\"\ntitle = \"D\"\nsource = \"d.csv\"\n[policy]\nfile = \"p.cedar\"\n{rest}"
        );
        std::fs::write(provider.home.join("o.toml"), offer).unwrap();
        provider.node.exchange.publish(&provider.home.join("o.toml")).await.map(|_| ())
    };
    let promise = policy("@contract(\"no re-identification\")", "");
    let refusal = publish(&promise, "contract_only = \"refuse\"\n").await.unwrap_err();
    assert!(refusal.is("policy-contract-only") && refusal.sentence.contains("no re-identification"), "{refusal}");
    publish(&policy("", ""), "contract_only = \"refuse\"\n").await.unwrap();
    let use_rule = policy("@after(\"notify\")", "");
    assert!(publish(&use_rule, "[audience]\nplain = true\n").await.unwrap_err().is("policy-not-enforced"));
    publish(&use_rule, "[audience]\nplain = true\nplain_unenforced = true\n").await.unwrap();
    // nobody at the consumer's could approve its uses: it makes no such agreement
    let uses = "@id(\"all\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\", Action::\"release\"], resource);
@id(\"read\") @before(\"approve(privacy)\") permit (principal, action == Action::\"read\", resource);";
    publish(uses, "").await.unwrap();
    let request =
        counterseal::exchange::NegotiationRequest::about(provider.did().clone(), DatasetId::parse("d").unwrap());
    let pid = consumer.node.exchange.negotiate(&request).await.unwrap();
    let view = consumer.node.exchange.negotiation_end(&pid, Duration::from_secs(20)).await.unwrap();
    assert!(view.ended.as_ref().is_some_and(|ended| ended.is("agreement-unenforceable")), "{:?}", view.ended);
    approver(&consumer, "dpo", &["privacy"], None).await;
    consumer.agree(&provider).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_waits_for_what_has_to_be_done_first_at_the_consumers() {
    let folder = tempfile::tempdir().unwrap();
    let text = "@id(\"all\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\", Action::\"release\"], resource);
@id(\"read\") @before(\"approve(privacy); consent(subjects); accept('no onward sharing')\") permit (principal, action == Action::\"read\", resource);";
    let (provider, consumer) = (
        crate::locks::start(folder.path(), "p", Arc::new(SystemClock)).await,
        crate::locks::start(folder.path(), "c", Arc::new(SystemClock)).await,
    );
    provider.add(&consumer).await;
    consumer.add(&provider).await;
    let officer = approver(&consumer, "dpo", &["privacy"], None).await;
    provider.publish(text).await;
    let agreement = consumer.agree(&provider).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let exchange = &consumer.node.exchange;
    let ask = |purpose: &str| UseRequest {
        of: "d".into(),
        purpose: purpose.into(),
        action: "read".into(),
        application: None,
    };
    let showing = |accepts: &[&str]| Handing {
        first: First { accepts: texts(accepts), ..First::default() },
        ..Handing::default()
    };
    let refusal = exchange.hand_over(&ask("x"), &showing(&[])).await.unwrap_err();
    assert!(refusal.is("use-conditional") && refusal.sentence.contains("privacy"), "{refusal}");
    let id = exchange.approvals().await.unwrap()[0].id.clone();
    exchange.decide_approval(&officer, &id, None).await.unwrap();
    assert!(exchange.hand_over(&ask("x"), &showing(&["no onward sharing"])).await.unwrap_err().is("use-conditional"));
    let consent = ConsentBody {
        name: "subjects".into(),
        participant: consumer.did().clone().into(),
        dataset: DatasetId::parse("d").unwrap(),
        reference: "archive/7".into(),
        until: None,
    };
    exchange.record_consent(&consent).await.unwrap();
    assert!(
        exchange.hand_over(&ask("other"), &showing(&["no onward sharing"])).await.unwrap_err().is("use-conditional")
    );
    assert!(exchange.hand_over(&ask("x"), &showing(&["No onward sharing"])).await.unwrap_err().is("use-conditional"));
    assert_eq!(consumer.count(Kind::Used).await, 0);
    exchange.hand_over(&ask("x"), &showing(&["no onward sharing"])).await.unwrap();
    assert_eq!(consumer.count(Kind::Used).await, 1);
    // the approval is used up
    assert!(exchange.hand_over(&ask("x"), &showing(&["no onward sharing"])).await.unwrap_err().is("use-conditional"));
}
