//! A home's keys: one file each, 0600, in a folder of 0700.
//!
//! `keys/<role>.key` holds 32 bytes in base64url and a line feed; `keys/tls.key` a PKCS #8 PEM; `certs/tls.pem` the
//! certificate, with the DID as URI subject alternative name.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Datelike as _, Days, Utc};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType, date_time_ymd};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use zeroize::Zeroizing;

use crate::{
    crypto::{
        Random, RandomExt, SealingKey, SigningKey, b64, hkdf_sha256,
        jws::{KeyRole, Kid},
        unb64,
    },
    id::Did,
    net::{PeerCertificate, TlsIdentity},
    time::Timestamp,
};

/// How long a certificate of ours is valid.
const VALID_DAYS: u64 = 730;
/// Seven keys, and the TLS key.
const ROLES: [&str; 7] = ["signing", "sealing", "token", "log", "cosigner", "release", "master"];

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// Readable by others.
    #[error(
        "{path} can be read by others (mode {mode:o}): run `chmod 600 {path}`, and rotate the key if it was exposed"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not a key.
    #[error("{path} is not a key file of ours: {problem}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it; never its content.
        problem: String,
    },
    /// There are keys already.
    #[error("{0} exists already: keys are never overwritten; choose another home")]
    Exists(PathBuf),
}

/// All keys of a home. Secrets are wiped when dropped.
pub struct Keys {
    did: Did,
    /// Signs objects.
    pub signing: SigningKey,
    /// Opens sealed offers.
    pub sealing: SealingKey,
    /// Signs transfer tokens.
    pub token: SigningKey,
    /// Signs checkpoints.
    pub log: SigningKey,
    /// Cosigns partners' checkpoints.
    pub cosigner: SigningKey,
    /// From which the keying material of releases is derived.
    pub release: Zeroizing<[u8; 32]>,
    /// From which pseudonymisation keys and the node's series are derived.
    pub master: Zeroizing<[u8; 32]>,
    /// Our certificate and its key.
    pub tls: TlsIdentity,
}

impl Keys {
    /// Makes a home's keys and certificate. `hosts` are further names or addresses in the certificate.
    pub fn create(
        home: &Path,
        did: &Did,
        hosts: &[String],
        random: &dyn Random,
        now: Timestamp,
    ) -> Result<Self, KeyFileError> {
        let keys = home.join("keys");
        if keys.exists() {
            return Err(KeyFileError::Exists(keys));
        }
        let certs = home.join("certs");
        for (folder, mode) in [(&keys, 0o700), (&certs, 0o755)] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(folder)
                .map_err(|error| KeyFileError::File { path: folder.clone(), error })?;
        }
        for role in ROLES {
            let secret = Zeroizing::new(random.array::<32>());
            let text = Zeroizing::new(format!("{}\n", b64(&*secret)));
            write_new(&keys.join(format!("{role}.key")), text.as_bytes(), 0o600)?;
        }
        let (certificate, key) = certificate(did, hosts, random, now)
            .map_err(|error| KeyFileError::Malformed { path: certs.clone(), problem: error.to_string() })?;
        write_new(&keys.join("tls.key"), Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
        write_new(&certs.join("tls.pem"), certificate.as_bytes(), 0o644)?;
        Self::load(home, did)
    }

    /// Reads a home's keys; refuses files that others may read.
    pub fn load(home: &Path, did: &Did) -> Result<Self, KeyFileError> {
        let folder = home.join("keys");
        let secret = |role: &str| read_secret(&folder.join(format!("{role}.key")));
        let signing = |role: &str| Ok::<_, KeyFileError>(SigningKey::from_seed(*secret(role)?));
        let malformed = |path: &Path, problem: &dyn std::fmt::Display| KeyFileError::Malformed {
            path: path.to_owned(),
            problem: problem.to_string(),
        };
        let key_path = folder.join("tls.key");
        let pem = Zeroizing::new(read_private(&key_path)?);
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| malformed(&key_path, &error))?;
        let cert_path = home.join("certs").join("tls.pem");
        let certificate = CertificateDer::from_pem_file(&cert_path).map_err(|error| malformed(&cert_path, &error))?;
        PeerCertificate::parse(&certificate).map_err(|error| malformed(&cert_path, &error))?;
        Ok(Self {
            did: did.clone(),
            signing: signing("signing")?,
            sealing: SealingKey::from_bytes(*secret("sealing")?),
            token: signing("token")?,
            log: signing("log")?,
            cosigner: signing("cosigner")?,
            release: secret("release")?,
            master: secret("master")?,
            tls: TlsIdentity {
                certificate: certificate.to_vec(),
                key: Zeroizing::new(key.secret_pkcs8_der().to_vec()),
            },
        })
    }

    /// Whose keys these are.
    pub const fn did(&self) -> &Did {
        &self.did
    }

    /// The signing key's id.
    pub fn signing_kid(&self) -> Kid {
        Kid::of(&self.did, KeyRole::Signing, &self.signing.public())
    }

    /// The token key's id.
    pub fn token_kid(&self) -> Kid {
        Kid::of(&self.did, KeyRole::Token, &self.token.public())
    }

    /// The secret of the node's own series.
    pub fn node_series(&self) -> [u8; 32] {
        hkdf_sha256(&*self.master, b"", &[b"counterseal/node-series"])
    }

    /// Our certificate, as others see it.
    pub fn certificate(&self) -> PeerCertificate {
        PeerCertificate::parse(&self.tls.certificate).unwrap_or_else(|_| unreachable!("checked when it was loaded"))
    }
}

/// A self-signed certificate with the DID as URI SAN (RFC 5280 §4.2.1.6), P-256.
fn certificate(
    did: &Did,
    hosts: &[String],
    random: &dyn Random,
    now: Timestamp,
) -> Result<(String, KeyPair), rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut names = vec!["localhost".to_owned()];
    names.extend(hosts.iter().filter(|host| host.parse::<IpAddr>().is_err()).cloned());
    names.dedup();
    let mut params = CertificateParams::new(names)?;
    params.subject_alt_names.push(SanType::URI(did.as_str().try_into()?));
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::from([127, 0, 0, 1])));
    for ip in hosts.iter().filter_map(|host| host.parse::<IpAddr>().ok()) {
        params.subject_alt_names.push(SanType::IpAddress(ip));
    }
    params.distinguished_name.push(DnType::CommonName, did.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(random.array::<16>().map(|byte| byte & 0x7f).to_vec().into());
    let today = DateTime::<Utc>::from_timestamp_millis(now.millis()).unwrap_or_default();
    let day = |date: DateTime<Utc>| date_time_ymd(date.year(), date.month() as u8, date.day() as u8);
    // from yesterday: partners' clocks differ
    params.not_before = day(today - Days::new(1));
    params.not_after = day(today + Days::new(VALID_DAYS));
    Ok((params.self_signed(&key)?.pem(), key))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyFileError> {
    (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    })()
    .map_err(|error| KeyFileError::File { path: path.to_owned(), error })
}

/// A text file that nobody else may read.
pub(super) fn read_private(path: &Path) -> Result<String, KeyFileError> {
    let file_error = |error| KeyFileError::File { path: path.to_owned(), error };
    let mode = fs::metadata(path).map_err(file_error)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    fs::read_to_string(path).map_err(file_error)
}

fn read_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let text = Zeroizing::new(read_private(path)?);
    let malformed = |problem: &str| KeyFileError::Malformed { path: path.to_owned(), problem: problem.into() };
    let bytes = Zeroizing::new(unb64(text.trim()).map_err(|_| malformed("not base64url"))?);
    <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new).map_err(|_| malformed("not 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SystemRandom;

    fn did() -> Did {
        Did::parse("did:web:hospital.invalid").unwrap()
    }

    fn create(home: &Path) -> Result<Keys, KeyFileError> {
        Keys::create(home, &did(), &["10.0.0.7".into()], &SystemRandom, Timestamp::from_millis(1_764_000_000_000))
    }

    #[test]
    fn keys_are_private_files_and_the_certificate_names_the_did() {
        let home = tempfile::tempdir().unwrap();
        let keys = create(home.path()).unwrap();
        assert_eq!(keys.certificate().dids, [did()]);
        for entry in fs::read_dir(home.path().join("keys")).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600);
        }
        assert_eq!(fs::metadata(home.path().join("keys")).unwrap().permissions().mode() & 0o777, 0o700);
        let again = Keys::load(home.path(), &did()).unwrap();
        assert_eq!(again.signing.public(), keys.signing.public());
        assert_eq!(again.certificate(), keys.certificate());
    }

    #[test]
    fn keys_that_others_may_read_are_refused_and_keys_are_never_overwritten() {
        let home = tempfile::tempdir().unwrap();
        create(home.path()).unwrap();
        assert!(matches!(create(home.path()), Err(KeyFileError::Exists(_))));
        let path = home.path().join("keys/token.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keys::load(home.path(), &did()).err().unwrap().to_string();
        assert!(error.contains("token.key") && error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "c2hvcnQ\n").unwrap();
        let error = Keys::load(home.path(), &did()).err().unwrap().to_string();
        assert!(error.contains("32 bytes") && !error.contains("c2hvcnQ"), "{error}");
    }
}
