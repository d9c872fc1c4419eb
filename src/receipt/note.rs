//! C2SP `signed-note`: a text and signature lines under it. Pure.
//!
//! ```text
//!   <text, one or more lines>
//!
//!   — <key name> <base64(key id ‖ signature)>
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::crypto::{Hasher, VerifyingKey};

/// How a key signs: the identifier that goes into its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 over the text: a log's own signature.
    Ed25519 = 1,
    /// Ed25519 over `cosignature/v1`, a time and the text (C2SP `tlog-cosignature`).
    Cosignature = 4,
}

/// Longest note that is read, in bytes; its signatures included.
pub const MAX_NOTE: usize = 64 << 10;

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Whose it says it is.
    pub name: &'a str,
    /// Key id and signature.
    pub signature: Vec<u8>,
}

/// The text with its last newline, and the lines under it that have the form of a signature. `None` if it is no note.
pub fn split(note: &str) -> Option<(&str, Vec<Line<'_>>)> {
    if note.len() > MAX_NOTE || !note.ends_with('\n') {
        return None;
    }
    // the last empty line: the text itself may hold some
    let end = note.rfind("\n\n")? + 1;
    let (text, rest) = note.split_at(end);
    let lines = rest.strip_prefix('\n')?;
    let lines = lines.lines().map(line).collect::<Option<Vec<_>>>()?;
    (!lines.is_empty()).then_some((text, lines))
}

/// Reads one signature line, without its newline.
pub fn line(line: &str) -> Option<Line<'_>> {
    let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let signature = STANDARD.decode(signature).ok()?;
    let named = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
    (named && signature.len() > 4).then_some(Line { name, signature })
}

/// Writes one signature line, newline included.
pub fn write_line(name: &str, key_id: [u8; 4], signature: &[u8]) -> String {
    let mut bytes = key_id.to_vec();
    bytes.extend_from_slice(signature);
    format!("\u{2014} {name} {}\n", STANDARD.encode(bytes))
}

/// The first four bytes of SHA-256(name ‖ 0x0A ‖ algorithm ‖ key).
pub fn key_id(name: &str, algorithm: Algorithm, key: &VerifyingKey) -> [u8; 4] {
    let mut hasher = Hasher::new();
    hasher.update(name.as_bytes());
    hasher.update(&[b'\n', algorithm as u8]);
    hasher.update(key.bytes());
    let hash = hasher.finish().0;
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The verifier key as tools take it: `<name>+<key id>+<base64(algorithm ‖ key)>`.
pub fn verifier_key(name: &str, algorithm: Algorithm, key: &VerifyingKey) -> String {
    let id: String = key_id(name, algorithm, key).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut bytes = vec![algorithm as u8];
    bytes.extend_from_slice(key.bytes());
    format!("{name}+{id}+{}", STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_id_is_that_of_the_specification() {
        // C2SP signed-note: `PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW`
        let vkey = STANDARD.decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let key = VerifyingKey::parse(vkey[1..].try_into().unwrap()).unwrap();
        assert_eq!(key_id("PeterNeumann", Algorithm::Ed25519, &key), [0xc7, 0x4f, 0x20, 0xa3]);
        assert_eq!(
            verifier_key("PeterNeumann", Algorithm::Ed25519, &key),
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        );
    }

    #[test]
    fn only_notes_are_read() {
        let (text, lines) = split("a\n\nb\n\n\u{2014} name AAAAAAA=\n").unwrap();
        assert_eq!(text, "a\n\nb\n");
        assert_eq!(lines[0].name, "name");
        for wrong in [
            "",
            "a\n",
            "a\n\n",
            "a\n\n\u{2014} name AAAAAAA=",
            "a\n\n\u{2014} na me AAAAAAA=\n",
            "a\n\n\u{2014} n+me AAAAAAA=\n",
            "a\n\n\u{2014} name AAAAAAB=\n",
            "a\n\n\u{2014} name AAAA\n",
            "a\n\n- name AAAAAAA=\n",
            "a\n\n\u{2014} name AAAAAAA=\nb\n",
        ] {
            assert_eq!(split(wrong), None, "{wrong:?}");
        }
    }
}
