use super::*;
use crate::{
    crypto::{SealingKey, SystemRandom},
    identity::Keys,
};

fn statement(seq: u64, signing: &SigningKey) -> Statement {
    Statement {
        did: Did::parse("did:web:a.invalid").unwrap(),
        seq,
        name: "A".into(),
        keys: PublicKeys {
            signing: signing.public(),
            sealing: SealingKey::from_bytes([5; 32]).public(),
            token: SigningKey::from_seed([6; 32]).public(),
            log: SigningKey::from_seed([7; 32]).public(),
            cosigner: SigningKey::from_seed([8; 32]).public(),
        },
        tls: vec![Sha256([1; 32])],
        endpoints: Endpoints { dsp: "https://127.0.0.1:1".into() },
        valid_from: Timestamp::from_millis(0),
    }
}

fn keys() -> [SigningKey; 3] {
    [1, 2, 3].map(|seed| SigningKey::from_seed([seed; 32]))
}

/// A signature over whatever it says.
fn forced(statement: &Statement, by: &SigningKey) -> Jws {
    let kid = Kid::of(&statement.did, KeyRole::Signing, &by.public());
    jws::sign(Typ::Statement, &kid, by, statement).unwrap()
}

#[test]
fn our_own_statement_names_our_keys_and_verifies() {
    let home = tempfile::tempdir().unwrap();
    let did = Did::parse("did:web:hospital.invalid").unwrap();
    let now = Timestamp::from_millis(1_764_000_000_000);
    let keys = Keys::create(home.path(), &did, &[], &SystemRandom, now).unwrap();
    let own = Statement::own(&keys, 1, "Hospital 医院", "https://Node.example:443/dsp/", now).unwrap();
    assert_eq!(own.endpoints.dsp, "https://node.example/dsp");
    assert_eq!(own.tls, [keys.certificate().spki]);
    assert_eq!(own.signing_kid(), keys.signing_kid());
    let read = verify_chain(&[own.sign(&keys.signing).unwrap()]).unwrap();
    assert_eq!(read, own);
    let later = Statement { seq: 2, valid_from: now.plus(std::time::Duration::from_secs(1)), ..own.clone() };
    assert!(own.says_the_same(&later));
    assert!(!own.says_the_same(&Statement { name: "H".into(), ..own.clone() }));
    assert!(Statement::own(&keys, 1, "Hospital", "http://127.0.0.1:8443", now).is_err(), "not https");
}

#[test]
fn rotation_needs_the_key_before_and_a_higher_number() {
    let [first, second, stranger] = keys();
    let one = statement(1, &first);
    let rotated = statement(2, &second);
    assert_eq!(verify_next(&one, &rotated.sign(&first).unwrap()).unwrap().payload().keys.signing, second.public());
    assert!(verify_next(&one, &rotated.sign(&second).unwrap()).is_err(), "by the new key alone");
    assert!(verify_next(&one, &rotated.sign(&stranger).unwrap()).is_err());
    let seq = |known: u64, found: u64| match verify_next(
        &statement(known, &first),
        &statement(found, &second).sign(&first).unwrap(),
    ) {
        Err(StatementError::Seq { known, found }) => Some((known, found)),
        _ => None,
    };
    assert_eq!(seq(2, 2), Some((2, 2)), "replayed");
    assert_eq!(seq(5, 2), Some((5, 2)), "lower");
    assert_eq!(seq(2, 5), None, "a gap is fine");

    let chain =
        [one.sign(&first).unwrap(), rotated.sign(&first).unwrap(), statement(3, &second).sign(&second).unwrap()];
    assert_eq!(verify_chain(&chain).unwrap().seq, 3);
    assert!(verify_chain(&[chain[0].clone(), chain[2].clone()]).is_err(), "a link is missing");
    assert!(verify_chain(&chain[1..]).is_err(), "the first must sign itself");
    assert!(verify_chain(&[chain[0].clone(), chain[0].clone()]).is_err(), "replayed");
    assert!(verify_chain(&[]).is_err());
}

#[test]
fn a_statement_about_somebody_else_is_refused() {
    let [first, second, _] = keys();
    let other = Statement { did: Did::parse("did:web:b.invalid").unwrap(), ..statement(2, &second) };
    assert!(verify_next(&statement(1, &first), &forced(&other, &first)).is_err(), "about and by another DID");
    let kid = Kid::of(&statement(1, &first).did, KeyRole::Signing, &first.public());
    let about = jws::sign(Typ::Statement, &kid, &first, &other).unwrap();
    assert!(matches!(verify_next(&statement(1, &first), &about), Err(StatementError::Did { .. })));
    assert!(verify_chain(&[about]).is_err());
    // the right key under an id that names another one
    let misnamed = Kid::of(&statement(1, &first).did, KeyRole::Signing, &second.public());
    let misnamed = jws::sign(Typ::Statement, &misnamed, &first, &statement(2, &second)).unwrap();
    assert!(verify_next(&statement(1, &first), &misnamed).is_err());
}

#[test]
fn another_kind_of_object_is_no_statement() {
    let [first, ..] = keys();
    let one = statement(1, &first);
    for typ in Typ::ALL.into_iter().filter(|typ| !matches!(typ, Typ::Statement | Typ::Token)) {
        let jws = jws::sign(typ, &one.signing_kid(), &first, &one).unwrap();
        assert!(verify_chain(&[jws]).is_err(), "{typ:?}");
    }
}

type Change = fn(&mut Statement);

#[test]
fn what_makes_no_sense_is_neither_made_nor_taken() {
    let [first, ..] = keys();
    let changes: [(&str, Change); 24] = [
        ("count from 1", |s| s.seq = 0),
        ("two roles", |s| s.keys.token = s.keys.signing),
        ("two roles", |s| s.keys.cosigner = s.keys.log),
        ("TLS keys", |s| s.tls.clear()),
        ("TLS keys", |s| s.tls = (0..9).map(|n| Sha256([n; 32])).collect()),
        ("twice", |s| s.tls = vec![Sha256([1; 32]); 2]),
        ("no name", |s| s.name = "  ".into()),
        ("longer", |s| s.name = "n".repeat(201)),
        ("U+001B", |s| s.name = "\u{1b}[31mred".into()),
        ("U+202E", |s| s.name = "gnp.\u{202e}exe".into()),
        ("U+200B", |s| s.name = "Hos\u{200b}pital".into()),
        ("not an https URL", |s| s.endpoints.dsp = "http://127.0.0.1:1".into()),
        ("not an https URL", |s| s.endpoints.dsp = "file:///etc/passwd".into()),
        ("not a URL", |s| s.endpoints.dsp = "127.0.0.1".into()),
        ("not a URL", |s| s.endpoints.dsp = String::new()),
        ("public_url", |s| s.endpoints.dsp = "https://0.0.0.0:8443".into()),
        ("public_url", |s| s.endpoints.dsp = "https://[::]:8443".into()),
        ("credentials", |s| s.endpoints.dsp = "https://u:p@a.example".into()),
        ("query", |s| s.endpoints.dsp = "https://a.example?x".into()),
        ("fragment", |s| s.endpoints.dsp = "https://a.example/x#y".into()),
        ("slash", |s| s.endpoints.dsp = "https://a.example/".into()),
        ("written", |s| s.endpoints.dsp = "https://2130706433".into()),
        ("written", |s| s.endpoints.dsp = "https://A.example/dsp".into()),
        ("written", |s| s.endpoints.dsp = "https://a.example/dsp/../x".into()),
    ];
    for (problem, change) in changes {
        let mut wrong = statement(1, &first);
        change(&mut wrong);
        let error = wrong.sign(&first).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        let error = verify_chain(&[forced(&wrong, &first)]).unwrap_err().to_string();
        assert!(error.contains(problem) && !error.contains('\u{1b}') && !error.contains('\u{202e}'), "{error}");
        wrong.seq = wrong.seq.max(1) + u64::from(wrong.seq != 0);
        if wrong.seq > 1 {
            assert!(verify_next(&statement(1, &first), &forced(&wrong, &first)).is_err(), "{problem}");
        }
    }
    for fine in ["https://a.example", "https://a.example:8443/dsp", "https://10.0.0.7", "https://[::1]:8443/x"] {
        let endpoints = Endpoints { dsp: fine.into() };
        assert!(Statement { endpoints, ..statement(1, &first) }.sign(&first).is_ok(), "{fine}");
    }
    let long = Statement {
        endpoints: Endpoints { dsp: format!("https://a.example/{}", "a".repeat(8192)) },
        ..statement(1, &first)
    };
    assert!(verify_chain(&[forced(&long, &first)]).unwrap_err().to_string().contains("at most"));
}

#[test]
fn a_fingerprint_is_stable_and_comparable() {
    let [key, ..] = keys();
    let invitation = Invitation::new(vec![statement(1, &key).sign(&key).unwrap()]);
    let shown = invitation.fingerprint();
    assert_eq!(shown, "T0Z8-D0RN-HTP1-4MSM-W70J-FF28", "the same on every machine, in every version");
    assert_eq!(shown, fingerprint(&invitation.statements));
    assert!(same_fingerprint(&shown.to_lowercase().replace('-', " "), &shown));
    assert!(same_fingerprint(&shown.replace('0', "o"), &shown));
    assert!(!same_fingerprint(&shown[..24], &shown));
    assert!(!same_fingerprint("", &shown) && !same_fingerprint("-", ""));
}

#[test]
fn a_swapped_invitation_shows_another_fingerprint() {
    let [key, _, stranger] = keys();
    let own = Invitation::new(vec![statement(1, &key).sign(&key).unwrap()]);
    let swapped = Invitation::new(vec![statement(1, &stranger).sign(&stranger).unwrap()]);
    assert_ne!(own.fingerprint(), swapped.fingerprint());
    let text = serde_json::to_string(&own).unwrap();
    let (read, statement) = Invitation::parse(&text).unwrap();
    assert_eq!(read.fingerprint(), own.fingerprint());
    assert_eq!(statement.did.as_str(), "did:web:a.invalid");
    assert!(Invitation::parse("{}").is_err());
    assert!(Invitation::parse(&text.replace("invitation", "offer")).is_err());
    assert!(Invitation::parse(&text.replacen('{', "{\"more\":1,", 1)).is_err());
}

/// A stranger's statements before a genuine newest one: the chain holds, so the fingerprint has to tell.
#[test]
fn a_strangers_past_before_a_genuine_statement_shows_another_fingerprint() {
    let [key, _, stranger] = keys();
    let genuine = statement(3, &key).sign(&key).unwrap();
    let forged = Invitation::new(vec![
        statement(1, &stranger).sign(&stranger).unwrap(),
        statement(2, &key).sign(&stranger).unwrap(),
        genuine.clone(),
    ]);
    assert!(verify_chain(&forged.statements).is_ok());
    assert_ne!(forged.fingerprint(), Invitation::new(vec![genuine]).fingerprint());
}

#[test]
fn an_invitation_file_is_a_file_of_bounded_length() {
    let folder = tempfile::tempdir().unwrap();
    let [key, ..] = keys();
    let invitation = Invitation::new(vec![statement(1, &key).sign(&key).unwrap()]);
    let path = folder.path().join("invitation.json");
    std::fs::write(&path, serde_json::to_string(&invitation).unwrap()).unwrap();
    assert!(Invitation::load(&path).is_ok());
    std::fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(Invitation::load(&path).unwrap_err().to_string().contains("1 MiB"));
    std::fs::write(&path, [0xff]).unwrap();
    assert!(Invitation::load(&path).is_err());
    assert!(Invitation::load(folder.path()).unwrap_err().to_string().contains("not a file"));
    assert!(Invitation::load(&folder.path().join("absent")).is_err());
}

#[test]
fn the_did_document_names_keys_as_our_objects_do() {
    let [key, ..] = keys();
    let statement = statement(1, &key);
    let document = did_document(&statement);
    let kid = statement.signing_kid().to_string();
    assert_eq!(document["id"], "did:web:a.invalid");
    assert_eq!(document["assertionMethod"][0], kid.as_str());
    assert_eq!(document["verificationMethod"][0]["id"], kid.as_str());
    assert_eq!(document["verificationMethod"][0]["publicKeyJwk"]["x"], b64(key.public().bytes()));
    assert_eq!(document["keyAgreement"][0], document["verificationMethod"][1]["id"]);
    assert_eq!(document["service"][0]["serviceEndpoint"], "https://127.0.0.1:1/.well-known/dspace-version");
}
