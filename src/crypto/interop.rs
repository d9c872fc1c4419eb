//! Objects made by other people's libraries, opened by us; and ours, written out for them (tests/conformance/jose).

use serde_json::{Value, json};

use super::{
    SealingKey, SigningKey, SystemRandom, VerifyingKey, b64,
    ece::{Keying, Opener, RECORD_PLAIN, Sealer},
    jwe,
    jws::{self, Jws, KeyRole, Kid, Typ},
    sha256, unb64,
};
use crate::id::Did;

const COMMITTED: &str = include_str!("../../tests/conformance/jose/vectors.json");

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {value}"))
}

fn bytes<const N: usize>(value: &Value, name: &str) -> [u8; N] {
    unb64(text(value, name)).unwrap().try_into().unwrap()
}

fn plaintext(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn seal(keying: &Keying, salt: [u8; 16], plain: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::new(keying, salt, "hint");
    let mut coded = sealer.header();
    let mut chunks: Vec<Vec<u8>> = plain.chunks(RECORD_PLAIN).map(<[u8]>::to_vec).collect();
    if chunks.is_empty() {
        chunks.push(Vec::new());
    }
    let last = chunks.len() - 1;
    for (index, mut chunk) in chunks.into_iter().enumerate() {
        sealer.seal_record(&mut chunk, index == last).unwrap();
        coded.extend(chunk);
    }
    coded
}

fn open_theirs(vectors: &Value) {
    let made = &vectors["jws"];
    let key = VerifyingKey::parse(bytes(made, "public")).unwrap();
    let did = Did::parse(text(made, "did")).unwrap();
    let token = Jws::parse(text(made, "token")).unwrap();
    let verified = jws::verify::<Value>(&token, Typ::Offer, &did, |_| Some(key)).unwrap();
    assert_eq!(*verified.payload(), serde_json::from_str::<Value>(text(made, "payload")).unwrap());

    let made = &vectors["jwe"];
    let key = SealingKey::from_bytes(bytes(made, "private"));
    assert_eq!(jwe::open(&key, text(made, "cty"), text(made, "token")).unwrap(), text(made, "plaintext").as_bytes());

    let made = &vectors["ece"];
    let keying = Keying::from_bytes(bytes(made, "ikm"));
    let bodies = made["bodies"].as_array().unwrap();
    assert!(bodies.len() >= 5);
    for body in bodies {
        let length = usize::try_from(body["length"].as_u64().unwrap()).unwrap();
        // the same key, salt and plaintext give the same bytes in both implementations
        let ours = seal(&keying, bytes(made, "salt"), &plaintext(length));
        match body["coded"].as_str() {
            Some(coded) => {
                let coded = unb64(coded).unwrap();
                let (mut opener, mut out) = (Opener::new(&keying), Vec::new());
                opener.push(&coded, &mut out).unwrap();
                opener.finish_into(&mut out).unwrap();
                assert_eq!(out, plaintext(length));
                assert_eq!(coded, ours);
            }
            None => assert_eq!(sha256(&ours).to_string(), text(body, "sha256"), "{length}"),
        }
    }
}

#[test]
fn what_other_libraries_made_is_opened() {
    open_theirs(&serde_json::from_str(COMMITTED).unwrap());
    if let Ok(path) = std::env::var("COUNTERSEAL_INTEROP_THEIRS") {
        open_theirs(&serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap());
    }
}

#[test]
fn ours_are_written_for_other_libraries() {
    let (signing, sealing) = (SigningKey::generate(&SystemRandom), SealingKey::generate(&SystemRandom));
    let kid = Kid::of(&Did::parse("did:web:ours.invalid").unwrap(), KeyRole::Signing, &signing.public());
    let payload = json!({"a": [1, 2, "三"], "v": 1});
    let token = jws::sign(Typ::Offer, &kid, &signing, &payload).unwrap();
    let sealed = jwe::seal(&sealing.public(), "k", "offer", b"an offer", &SystemRandom).unwrap();
    let keying = Keying::from_bytes([9; 32]);
    let bodies: Vec<Value> = [0, 1, RECORD_PLAIN, RECORD_PLAIN + 1, 200_000]
        .into_iter()
        .enumerate()
        .map(|(index, length)| json!({"length": length, "coded": b64(&seal(&keying, [index as u8; 16], &plaintext(length)))}))
        .collect();
    let ours = json!({
        "jws": {"token": token, "public": signing.public(), "payload": r#"{"a":[1,2,"三"],"v":1}"#},
        "jwe": {"token": sealed, "public": sealing.public(), "private": b64(sealing.bytes()), "plaintext": "an offer"},
        "ece": {"ikm": b64(keying.bytes()), "bodies": bodies},
    });
    assert!(jws::verify::<Value>(&token, Typ::Offer, kid.did(), |_| Some(signing.public())).is_ok());
    if let Ok(path) = std::env::var("COUNTERSEAL_INTEROP_OURS") {
        std::fs::write(path, ours.to_string()).unwrap();
    }
}
