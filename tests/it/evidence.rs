//! Exports: complete, of nobody else, decided again, and whatever is changed in them is found.

use std::sync::Arc;

use crate::locks::{Actor, OPEN, pair_with, start, wanted};
use counterseal::{
    crypto::{
        SigningKey,
        jws::{KeyRole, Kid},
        unb64,
    },
    evidence::{Bundle, Finding, Scope, Trust, Verdict, folder, folder::Files, reconcile, verify},
    exchange::{FetchRequest, UseRequest},
    id::{AgreementId, ParticipantId, Sha256},
    receipt::{Commit, Kind, NewReceipt, Receipt, SeriesKey, checkpoint::Checkpoint, merkle, tile},
    time::{Clock, SystemClock},
};

const TWICE: &str = "@id(\"see\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\"], resource);
@id(\"twice\") @during(\"band(age, 10)\") permit (principal, action == Action::\"release\", resource) when { context.count < 2 && context.purpose == \"research\" };
@id(\"read\") permit (principal, action == Action::\"read\", resource) when { context.count < 2 };";

pub fn trust(actors: &[&Actor]) -> Trust {
    let mut trust = Trust::default();
    for actor in actors {
        trust.add(&actor.node.exchange.invitation()).unwrap();
    }
    trust
}

async fn files(actor: &Actor, scope: Scope) -> Files {
    actor.node.exchange.export_files(scope, true).await.unwrap()
}

/// Everything that a verifier says of these files.
fn found(files: &Files, trust: &Trust) -> (Vec<Finding>, Option<Verdict>) {
    let (bundle, mut findings) = folder::read(files);
    let verdict = bundle.map(|bundle| verify(&bundle, trust));
    findings.extend(verdict.iter().flat_map(|verdict| verdict.findings.clone()));
    (findings, verdict)
}

/// The same throws in every run (Knuth's MMIX generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn has(findings: &[Finding], code: &str) -> bool {
    findings.iter().any(|finding| finding.code == code)
}

fn of(agreement: &AgreementId) -> Scope {
    Scope { agreement: Some(agreement.clone()), ..Scope::default() }
}

/// The files again, signed by their exporter: what a dishonest one hands out.
fn signed_again(bundle: &Bundle, by: &Actor) -> Files {
    let keys = &by.node.exchange.keys;
    folder::files(bundle, &keys.signing_kid(), &keys.signing).unwrap()
}

/// A release, a refusal, uses: every kind of decision.
async fn busy(folder: &std::path::Path) -> (Actor, Actor, AgreementId) {
    let (provider, consumer, agreement) = pair_with(folder, TWICE, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let other = FetchRequest { purpose: "marketing".into(), another: true, ..wanted(&agreement) };
    assert!(consumer.fetch(other).await.unwrap_err().is("policy-no-permit"));
    let request = UseRequest { of: "d".into(), purpose: "x".into(), action: "read".into(), application: None };
    for _ in 0..2 {
        consumer.node.exchange.use_copy(&request).await.unwrap();
    }
    assert!(consumer.node.exchange.use_copy(&request).await.is_err());
    for _ in 0..200 {
        let halves = provider.node.exchange.receipts.halves(&agreement).await.unwrap();
        if halves.iter().filter(|half| half.kind == "used").count() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    (provider, consumer, agreement)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_is_decided_again_and_without_trust_nothing_is_proven() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = busy(folder.path()).await;
    let both = trust(&[&provider, &consumer]);
    for (actor, decisions) in [(&provider, 3), (&consumer, 3)] {
        for scope in [Scope::default(), of(&agreement)] {
            let files = files(actor, scope).await;
            let (findings, verdict) = found(&files, &both);
            let verdict = verdict.unwrap();
            assert!(findings.is_empty() && verdict.whole && verdict.unproven.is_empty(), "{findings:?}");
            assert!(verdict.replayed >= decisions && verdict.not_replayed == 0, "{verdict:?}");
            let (findings, verdict) = found(&files, &Trust::default());
            assert!(findings.is_empty() && verdict.unwrap().unproven.len() == 2, "consistent, keys unproven");
        }
        let redacted = actor.node.exchange.export(of(&agreement), false).await.unwrap();
        let verdict = verify(&redacted, &both);
        assert!(verdict.holds() && verdict.replayed == 0 && verdict.not_replayed >= decisions, "{verdict:?}");
        let shown = String::from_utf8(serde_json::to_vec(&redacted.receipts).unwrap()).unwrap();
        assert!(
            !shown.contains("\"salt\":\"") || !shown.contains("contents"),
            "nothing is shown that only is committed to"
        );
    }
    let [left, right] = [&provider, &consumer].map(|actor| actor.node.exchange.export(of(&agreement), true));
    let reconciled = reconcile(&left.await.unwrap(), &right.await.unwrap(), &both);
    assert!(reconciled.holds() && reconciled.pairs >= 6, "{:?}", reconciled.findings);
    // a selection says that it is one, and is not blamed for its gaps
    for scope in [
        Scope { kind: Some(Kind::Released), ..Scope::default() },
        Scope { verdict: Some("default-deny".into()), ..of(&agreement) },
        Scope { since: Some(SystemClock.now().plus(std::time::Duration::from_secs(60))), ..Scope::default() },
        Scope { until: Some(SystemClock.now()), ..of(&agreement) },
    ] {
        let (findings, verdict) = found(&files(&provider, scope.clone()).await, &both);
        assert!(findings.is_empty() && !verdict.unwrap().whole, "{scope:?}: {findings:?}");
    }
}

/// The bytes, and what every signed object in them says.
fn everything_in(files: &Files) -> Vec<u8> {
    let mut all = Vec::new();
    for bytes in files.values() {
        all.extend_from_slice(bytes);
        for part in bytes.split(|byte| !byte.is_ascii_alphanumeric() && !b"-_".contains(byte)) {
            all.extend(std::str::from_utf8(part).ok().and_then(|part| unb64(part).ok()).unwrap_or_default());
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_about_one_partner_holds_nothing_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let provider = start(folder.path(), "p", Arc::new(SystemClock)).await;
    let consumers = [
        start(folder.path(), "first", Arc::new(SystemClock)).await,
        start(folder.path(), "second", Arc::new(SystemClock)).await,
    ];
    let mut agreements = Vec::new();
    for consumer in &consumers {
        provider.add(consumer).await;
        consumer.add(&provider).await;
    }
    provider.publish(OPEN).await;
    for consumer in &consumers {
        let agreement = consumer.agree(&provider).await;
        consumer.fetch(wanted(&agreement)).await.unwrap();
        agreements.push(agreement);
    }
    tokio::time::sleep(std::time::Duration::from_millis(1300)).await;
    for (own, other) in [(0, 1), (1, 0)] {
        let peer: ParticipantId = consumers[own].did().clone().into();
        for scope in [of(&agreements[own]), Scope { peer: Some(peer), ..Scope::default() }] {
            let files = files(&provider, scope.clone()).await;
            let (findings, verdict) = found(&files, &trust(&[&provider, &consumers[own]]));
            assert!(findings.is_empty() && verdict.unwrap().witnessed.len() == 1, "{scope:?}: {findings:?}");
            let all = everything_in(&files);
            let contains = |text: &str| all.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(contains(consumers[own].did().as_str()) && contains(agreements[own].as_str()));
            assert!(!contains(consumers[other].did().as_str()), "{scope:?} names the other partner");
            assert!(!contains(agreements[other].as_str()), "{scope:?} names the other agreement");
        }
    }
    let all = everything_in(&files(&provider, Scope::default()).await);
    assert!(all.windows(6).any(|window| window == b"second"), "the search does find");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_bit_that_is_flipped_anywhere_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let files = files(&provider, of(&agreement)).await;
    assert!(folder::check(&files).is_empty());
    let bits: usize = files.values().map(|bytes| bytes.len() * 8).sum();
    // all of them, on as many threads as there are
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let missed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let files = &files;
                scope.spawn(move || {
                    let (mut missed, mut flipped, mut at) = (Vec::new(), files.clone(), 0);
                    for (path, bytes) in files {
                        for bit in 0..bytes.len() * 8 {
                            at += 1;
                            if at % threads != worker {
                                continue;
                            }
                            let flip = |files: &mut Files| files.get_mut(path).unwrap()[bit / 8] ^= 1 << (bit % 8);
                            flip(&mut flipped);
                            if folder::check(&flipped).is_empty() {
                                missed.push(format!("{path}, bit {bit}"));
                            }
                            flip(&mut flipped);
                        }
                    }
                    missed
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    println!("{bits} bits in {} files", files.len());
    assert!(missed.is_empty(), "{missed:?}");
    // files that are gone or too much
    for path in files.keys() {
        let mut fewer = files.clone();
        fewer.remove(path);
        assert!(!found(&fewer, &Trust::default()).0.is_empty(), "{path} removed");
    }
    for path in ["more.txt", "tile/0/001", "tile/5/000", "policies/x.cedar"] {
        let mut more = files.clone();
        more.insert(path.into(), b"x".to_vec());
        assert!(has(&found(&more, &Trust::default()).0, "file-unknown"), "{path} added");
    }
}

/// Each signed line of an export, changed by somebody who can sign the list of files anew: the exporter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exporter_who_signs_what_it_has_altered_is_found_out_too() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = busy(folder.path()).await;
    let both = trust(&[&provider, &consumer]);
    let honest = provider.node.exchange.export(of(&agreement), true).await.unwrap();
    let check = |bundle: &Bundle| found(&signed_again(bundle, &provider), &both).0;
    assert!(check(&honest).is_empty(), "{:?}", check(&honest));
    let in_series = |bundle: &Bundle, at: usize| {
        serde_json::to_value(&bundle.receipts[at]).unwrap()["jws"].as_str().is_some_and(|jws| {
            let payload = unb64(jws.split('.').nth(1).unwrap()).unwrap();
            String::from_utf8(payload).unwrap().contains("\"series\":\"urn:")
        })
    };
    for at in 0..honest.receipts.len() {
        let mut removed = honest.clone();
        removed.receipts.remove(at);
        // what is in the node's own series, a partner can't miss
        assert_eq!(has(&check(&removed), "receipt-missing"), in_series(&honest, at), "receipt {at} removed");
        let mut twice = honest.clone();
        twice.receipts.push(honest.receipts[at].clone());
        assert!(has(&check(&twice), "receipt-twice"), "receipt {at} twice");
        if at > 0 {
            let mut disordered = honest.clone();
            disordered.receipts.swap(at - 1, at);
            assert!(has(&check(&disordered), "receipt-disordered"), "receipt {at} before its time");
        }
        let mut elsewhere = honest.clone();
        elsewhere.receipts[at].index += 1;
        assert!(!check(&elsewhere).is_empty(), "receipt {at} in another place");
        let mut renumbered = honest.clone();
        renumbered.receipts[at].number += 1;
        assert_eq!(has(&check(&renumbered), "number-wrong"), in_series(&honest, at));
        for name in honest.receipts[at].contents.keys() {
            let mut retold = honest.clone();
            retold.receipts[at].contents.get_mut(name).unwrap().text.push(' ');
            assert!(has(&check(&retold), "content-differs"), "{name} of receipt {at}");
        }
    }
    for at in 0..honest.halves.len() {
        let mut moved = honest.clone();
        if let Some(number) = &mut moved.halves[at].number {
            *number += 1;
            assert!(has(&check(&moved), "half-unproven"), "half {at}");
            moved.halves[at].number = None;
            assert!(has(&check(&moved), "half-unproven"), "half {at}");
        }
    }
    let mut alone = honest.clone();
    alone.agreements[0].by_consumer = None;
    assert!(has(&check(&alone), "one-sided"), "a signature that was left out");
    let mut secret = honest.clone();
    secret.agreements[0].series_secret.0[0] ^= 1;
    assert!(has(&check(&secret), "agreement-broken"));
    let mut shorter = honest.clone();
    shorter.entries.pop();
    assert!(has(&check(&shorter), "log-altered"));
    let mut schema = honest.clone();
    schema.schema.push('\n');
    assert!(has(&check(&schema), "schema-missing"));

    // bits of whatever is signed by somebody, by chance
    let mut dice = Dice(7);
    let files = signed_again(&honest, &provider);
    let signed =
        ["receipts.jsonl", "halves.jsonl", "agreements.jsonl", "statements.json", "checkpoint", "checkpoints.jsonl"];
    for _ in 0..300 {
        let path = signed[dice.below(signed.len())];
        let mut flipped = files.clone();
        let bytes = flipped.get_mut(path).unwrap();
        let bit = dice.below(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (bundle, broken) = folder::read(&flipped);
        // the list of files names it; without the list, what is read of it has to be found as well
        let inside = broken.iter().any(|finding| finding.code != "file-altered")
            || bundle.is_none_or(|bundle| !verify(&bundle, &both).holds());
        let harmless = flipped[path]
            .iter()
            .zip(&files[path])
            .any(|(now, then)| now != then && (b" \n".contains(now) || b" \n".contains(then)));
        assert!(inside || harmless, "{path}, bit {bit}");
    }
}

/// Writes a receipt that its connector never would, with its own keys, into its own log.
async fn write(actor: &Actor, agreement: &AgreementId, change: impl FnOnce(&mut Receipt), like: Kind) {
    let exchange = &actor.node.exchange;
    let all = exchange.receipts.list(&Default::default(), 0, 1000).await.unwrap();
    let model = all.iter().rfind(|stored| stored.receipt.kind == like).unwrap();
    let mut receipt = model.receipt.clone();
    receipt.id = format!("urn:uuid:forged-{}", all.len()).parse().unwrap();
    change(&mut receipt);
    let row = exchange.agreements().await.unwrap().into_iter().find(|row| row.id() == agreement).unwrap();
    let mut commit = Commit::new();
    let keys = &exchange.keys;
    commit.receipt(NewReceipt::sign(receipt, &keys.signing_kid(), &keys.signing, row.series_key()).unwrap());
    exchange.committer.commit(commit).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_the_policy_did_not_make_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = busy(folder.path()).await;
    let both = trust(&[&provider, &consumer]);
    // the refusal of marketing, told as an allow; its request is what it was
    write(
        &provider,
        &agreement,
        |receipt| {
            receipt.kind = Kind::Released;
            let decision = receipt.decision.as_mut().unwrap();
            decision.verdict = "allow".into();
            decision.policies = vec!["twice".into()];
            decision.reason = None;
        },
        Kind::Denied,
    )
    .await;
    let mut bundle = provider.node.exchange.export(of(&agreement), true).await.unwrap();
    let refused = bundle
        .receipts
        .iter()
        .find(|one| serde_json::to_string(one).unwrap().contains("marketing"))
        .unwrap()
        .contents
        .clone();
    bundle.receipts.last_mut().unwrap().contents = refused;
    let (findings, _) = found(&signed_again(&bundle, &provider), &both);
    let differs = findings.iter().find(|finding| finding.code == "decision-differs").unwrap();
    assert!(differs.place.contains("forged-") && differs.problem.contains("allow by [twice]"), "{differs:?}");
    assert!(differs.problem.contains("the policy says default-deny"), "{differs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_folder_forged_with_other_keys_proves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    // the same names, other keys
    let (forger, accomplice, invented) = pair_with(other.path(), OPEN, Arc::new(SystemClock)).await;
    accomplice.fetch(wanted(&invented)).await.unwrap();
    let forged = files(&forger, of(&invented)).await;
    let (findings, verdict) = found(&forged, &Trust::default());
    assert!(findings.is_empty() && !verdict.unwrap().unproven.is_empty(), "consistent, keys unproven");
    let (findings, _) = found(&forged, &trust(&[&provider, &consumer]));
    assert!(has(&findings, "key-other"), "{findings:?}");
    // the real one under a list of files that somebody else signed
    let real = provider.node.exchange.export(of(&agreement), true).await.unwrap();
    let (findings, _) = found(&signed_again(&real, &accomplice), &trust(&[&provider, &consumer]));
    assert!(has(&findings, "manifest-broken"), "{findings:?}");
}

/// A log rewritten by its own keys: the partner's cosignature, its halves and its receipts say otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewritten_log_is_convicted_by_what_the_partner_holds() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = busy(folder.path()).await;
    let both = trust(&[&provider, &consumer]);
    for _ in 0..400 {
        let partner = ParticipantId::from(consumer.did().clone());
        let last = provider.node.exchange.receipts.last_with(&partner).await.unwrap();
        if provider.node.exchange.witnessed().await.unwrap()[0].1 > last.unwrap() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    let mut rewritten = provider.node.exchange.export(of(&agreement), true).await.unwrap();
    let theirs = consumer.node.exchange.export(of(&agreement), true).await.unwrap();
    // the release never happened: its entry is another's, and the log is signed anew
    let released = rewritten.receipts.iter().position(|one| {
        let payload = unb64(one.jws.as_str().split('.').nth(1).unwrap()).unwrap();
        String::from_utf8(payload).unwrap().contains("\"kind\":\"released\"")
    });
    let gone = rewritten.receipts.remove(released.unwrap());
    rewritten.entries[gone.index as usize] = [1; tile::WIDTH as usize / 4 + 1];
    let leaves: Vec<Sha256> = rewritten.entries.iter().map(|entry| merkle::leaf_hash(entry)).collect();
    let keys = &provider.node.exchange.keys;
    let origin = format!("{}/log/1", provider.did());
    let checkpoint = Checkpoint { origin, size: leaves.len() as u64, root: merkle::root_of(&leaves) };
    rewritten.checkpoint = checkpoint.sign(&keys.log);
    let (findings, _) = found(&signed_again(&rewritten, &provider), &both);
    assert!(has(&findings, "receipt-missing") && has(&findings, "log-forked"), "{findings:?}");
    // though the cosignatures be left out: the consumer's halves rest on the log as it was
    rewritten.checkpoints.clear();
    let reconciled = reconcile(&rewritten, &theirs, &both);
    let denied = reconciled.findings.iter().find(|finding| finding.code == "half-denied").unwrap();
    assert!(denied.place.contains("(released)"), "{denied:?}");
    assert!(has(&reconciled.findings, "log-forked"), "{:?}", reconciled.findings);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_rotated_away_signs_nothing_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let old = SigningKey::from_seed(*provider.node.exchange.keys.signing.seed());
    let (home, at) = (provider.home.clone(), provider.node.running.clone());
    provider.node.stop().await;
    crate::house::House::elsewhere(home.clone(), "p").ok(&["key", "rotate", "signing"]);
    let provider = crate::locks::again(&home, at).await;
    let both = trust(&[&provider, &consumer]);
    assert!(found(&files(&provider, of(&agreement)).await, &both).0.is_empty());
    let exchange = &provider.node.exchange;
    let row = exchange.agreements().await.unwrap().into_iter().next().unwrap();
    let mut receipt = exchange
        .receipts
        .list(&Default::default(), 0, 100)
        .await
        .unwrap()
        .into_iter()
        .find(|stored| stored.receipt.kind == Kind::Released)
        .unwrap()
        .receipt;
    receipt.id = "urn:uuid:stolen".parse().unwrap();
    let kid = Kid::of(provider.did(), KeyRole::Signing, &old.public());
    let mut commit = Commit::new();
    commit.receipt(NewReceipt::sign(receipt, &kid, &old, row.series_key()).unwrap());
    exchange.committer.commit(commit).await.unwrap();
    let (findings, _) = found(&files(&provider, of(&agreement)).await, &both);
    assert!(has(&findings, "key-outdated"), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_large_export_flipped_bits_are_found_too() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let exchange = &provider.node.exchange;
    // many receipts of the node's, so that the log has full tiles and a level above
    let series = SeriesKey::derive(&exchange.keys.node_series(), provider.did());
    let kid = exchange.keys.signing_kid();
    for n in 0..30 {
        let mut commit = Commit::new();
        for m in 0..100 {
            let id = format!("urn:uuid:many-{n}-{m}").parse().unwrap();
            let receipt = Receipt::new(id, Kind::Configured, SystemClock.now(), provider.did().clone().into());
            commit.receipt(NewReceipt::sign(receipt, &kid, &exchange.keys.signing, series.clone()).unwrap());
        }
        exchange.committer.commit(commit).await.unwrap();
    }
    let files = files(&provider, Scope::default()).await;
    assert!(files.contains_key("tile/1/000.p/11") && files.contains_key("tile/0/010"), "{:?}", files.keys());
    let (findings, verdict) = found(&files, &trust(&[&provider, &consumer]));
    assert!(findings.is_empty() && verdict.as_ref().unwrap().receipts > 3000, "{findings:?}");
    let mut dice = Dice(7);
    let paths: Vec<&String> = files.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(path, _)| path).collect();
    for _ in 0..200 {
        let path = paths[dice.below(paths.len())];
        let mut flipped = files.clone();
        let bytes = flipped.get_mut(path).unwrap();
        let bit = dice.below(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!folder::check(&flipped).is_empty(), "{path}, bit {bit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dispute_is_settled_by_what_was_signed() {
    let folder = tempfile::tempdir().unwrap();
    let chapters = crate::dispute::play(folder.path()).await.unwrap();
    assert!(chapters.len() >= 12);
    for chapter in &chapters {
        assert!(chapter.is_settled(), "{}: {:?}", chapter.title, chapter.findings);
        // whatever is wrong, the receipts are named
        let named = chapter.settling().is_none_or(|finding| finding.place.contains("urn:uuid:"));
        assert!(named, "{:?}", chapter.settling());
    }
}

/// Two receipts with one number: showing one of them is not showing all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_is_given_twice_is_found_though_only_one_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = busy(folder.path()).await;
    let both = trust(&[&provider, &consumer]);
    let honest = provider.node.exchange.export(of(&agreement), true).await.unwrap();
    let row = provider.node.exchange.agreement_row(&agreement).await.unwrap();
    // one more entry, with the tag of number 0 and another receipt's hash; the log is signed anew
    let mut doubled = honest.clone();
    doubled.entries.push(counterseal::receipt::entry(&row.series_key().tag(0), &Sha256([9; 32])));
    let leaves: Vec<Sha256> = doubled.entries.iter().map(|entry| merkle::leaf_hash(entry)).collect();
    let origin = format!("{}/log/1", provider.did());
    let checkpoint = Checkpoint { origin, size: leaves.len() as u64, root: merkle::root_of(&leaves) };
    doubled.checkpoint = checkpoint.sign(&provider.node.exchange.keys.log);
    let (findings, _) = found(&signed_again(&doubled, &provider), &both);
    let found =
        findings.iter().find(|finding| finding.code == "number-reused").unwrap_or_else(|| panic!("{findings:?}"));
    assert!(found.problem.contains("number 0 of the exporter's series 2 times"), "{found:?}");
}

/// An agreement that one party leaves out of an export that should hold it, the other's export shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agreement_that_is_left_out_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, first) = busy(folder.path()).await;
    let second = consumer.agree(&provider).await;
    let both = trust(&[&provider, &consumer]);
    let mut left = provider.node.exchange.export(Scope::default(), true).await.unwrap();
    let right = consumer.node.exchange.export(Scope::default(), true).await.unwrap();
    assert!(!has(&reconcile(&left, &right, &both).findings, "agreement-denied"));
    let theirs = |id: &AgreementId| format!("\"agreement\":\"{id}\"");
    let named = |jws: &counterseal::crypto::jws::Jws| {
        String::from_utf8(unb64(jws.as_str().split('.').nth(1).unwrap()).unwrap()).unwrap()
    };
    left.agreements.retain(|one| !named(one.by_provider.as_ref().unwrap()).contains(second.as_str()));
    left.receipts.retain(|one| !named(&one.jws).contains(&theirs(&second)));
    left.halves.retain(|half| half.agreement != second);
    let reconciled = reconcile(&left, &right, &both);
    let denied = reconciled.findings.iter().find(|finding| finding.code == "agreement-denied");
    assert!(denied.is_some_and(|denied| denied.place.contains(second.as_str())), "{:?}", reconciled.findings);
    // an export of one agreement is not asked for another
    let narrow = provider.node.exchange.export(of(&first), true).await.unwrap();
    assert!(!has(&reconcile(&narrow, &right, &both).findings, "agreement-denied"));
}
