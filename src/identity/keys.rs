//! A home's keys: one file each, 0600, in a folder of 0700.
//!
//! `keys/<role>.key` holds 32 bytes in base64url and a line feed (for `signing`, `token`, `log` and `cosigner` the
//! Ed25519 seed, for `sealing` the X25519 scalar); `keys/tls.key` a PKCS #8 PEM; `certs/tls.pem` the certificate, with
//! the DID as URI subject alternative name. They are made in a folder beside and moved to their place when all are on
//! the disk: a home has all of its keys or none.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
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
/// The longest file that is read as a key or a certificate, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// The longest common name (RFC 5280, ub-common-name).
const MAX_NAME: usize = 64;
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
    /// Others can enter the folder.
    #[error(
        "{path} can be entered by others (mode {mode:o}): run `chmod 700 {path}`, and rotate the keys if they were exposed"
    )]
    Open {
        /// Which folder.
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
    #[error("{0} exists already: keys are never overwritten")]
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
    certificate: PeerCertificate,
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
        for (folder, mode) in [(home.to_owned(), 0o700), (home.join("certs"), 0o755)] {
            fs::DirBuilder::new().recursive(true).mode(mode).create(&folder).map_err(at(&folder))?;
        }
        let staged = tempfile::Builder::new()
            .prefix(".keys-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(home)
            .map_err(at(home))?;
        for role in ROLES {
            let secret = Zeroizing::new(random.array::<32>());
            let text = Zeroizing::new(format!("{}\n", b64(&*secret)));
            write_new(&staged.path().join(format!("{role}.key")), text.as_bytes(), 0o600)?;
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(unmade(home))?;
        write_new(&staged.path().join("tls.key"), Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
        sync(staged.path())?;
        place_certificate(home, did, hosts, &key, random, now)?;
        // the last step: from here on the home has keys
        fs::rename(staged.path(), &keys).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => KeyFileError::Exists(keys.clone()),
            _ => at(&keys)(error),
        })?;
        let _ = staged.keep();
        sync(home)?;
        Self::load(home, did)
    }

    /// Makes a new certificate for the TLS key that the home has, valid from now. The key stays, so partners' pins and
    /// our statement do; transfer tokens, which are bound to the certificate, have to be fetched anew.
    pub fn renew_certificate(
        home: &Path,
        did: &Did,
        hosts: &[String],
        random: &dyn Random,
        now: Timestamp,
    ) -> Result<Self, KeyFileError> {
        let path = home.join("keys").join("tls.key");
        let pem = read_private(&path)?;
        let key = KeyPair::from_pem(&pem).map_err(|error| malformed(&path, error))?;
        place_certificate(home, did, hosts, &key, random, now)?;
        Self::load(home, did)
    }

    /// Reads a home's keys; refuses files that others may read, and a certificate that is another's.
    pub fn load(home: &Path, did: &Did) -> Result<Self, KeyFileError> {
        let folder = home.join("keys");
        let mode = fs::metadata(&folder).map_err(at(&folder))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Open { path: folder, mode });
        }
        let secret = |role: &str| read_secret(&folder.join(format!("{role}.key")));
        let signing = |role: &str| Ok::<_, KeyFileError>(SigningKey::from_seed(*secret(role)?));
        let (tls, certificate) = read_tls(home, did)?;
        Ok(Self {
            did: did.clone(),
            signing: signing("signing")?,
            sealing: SealingKey::from_bytes(*secret("sealing")?),
            token: signing("token")?,
            log: signing("log")?,
            cosigner: signing("cosigner")?,
            release: secret("release")?,
            master: secret("master")?,
            tls,
            certificate,
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
        self.certificate.clone()
    }
}

fn read_tls(home: &Path, did: &Did) -> Result<(TlsIdentity, PeerCertificate), KeyFileError> {
    let path = home.join("keys").join("tls.key");
    let pem = read_private(&path)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| malformed(&path, error))?;
    let path = home.join("certs").join("tls.pem");
    let pem = read_bounded(&File::open(&path).map_err(at(&path))?, &path)?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| malformed(&path, error))?;
    let certificate = PeerCertificate::parse(&der).map_err(|error| malformed(&path, error))?;
    if !certificate.dids.contains(did) {
        return Err(malformed(&path, format_args!("it doesn't name {did}, who this connector is")));
    }
    let tls = TlsIdentity { certificate: der.to_vec(), key: Zeroizing::new(key.secret_pkcs8_der().to_vec()) };
    tls.check().map_err(|error| malformed(&path, format_args!("it doesn't go with keys/tls.key: {error}")))?;
    Ok((tls, certificate))
}

/// Puts a fresh certificate in its place, in one step.
fn place_certificate(
    home: &Path,
    did: &Did,
    hosts: &[String],
    key: &KeyPair,
    random: &dyn Random,
    now: Timestamp,
) -> Result<(), KeyFileError> {
    let folder = home.join("certs");
    let pem = certificate(did, hosts, key, random, now).map_err(unmade(&folder))?;
    let path = folder.join("tls.pem");
    (|| {
        let mut staged =
            tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o644)).tempfile_in(&folder)?;
        staged.write_all(pem.as_bytes())?;
        staged.as_file().sync_all()?;
        staged.persist(&path).map_err(|error| error.error)?;
        File::open(&folder)?.sync_all()
    })()
    .map_err(at(&path))
}

/// A self-signed certificate with the DID as URI SAN (RFC 5280 §4.2.1.6).
fn certificate(
    did: &Did,
    hosts: &[String],
    key: &KeyPair,
    random: &dyn Random,
    now: Timestamp,
) -> Result<String, rcgen::Error> {
    let hosts: BTreeSet<&str> = hosts.iter().map(String::as_str).chain(["localhost", "127.0.0.1"]).collect();
    let mut params = CertificateParams::new(hosts.into_iter().map(str::to_owned).collect::<Vec<_>>())?;
    params.subject_alt_names.push(SanType::URI(did.as_str().try_into()?));
    let name = if did.as_str().len() <= MAX_NAME { did.as_str() } else { "counterseal" };
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    // positive, and not shortened: RFC 5280 §4.1.2.2
    let mut serial = random.array::<16>();
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(serial.to_vec().into());
    let today = DateTime::<Utc>::from_timestamp_millis(now.millis()).unwrap_or_default();
    let day = |date: DateTime<Utc>| date_time_ymd(date.year(), date.month() as u8, date.day() as u8);
    // from yesterday: partners' clocks differ
    params.not_before = day(today - Days::new(1));
    params.not_after = day(today + Days::new(VALID_DAYS));
    Ok(params.self_signed(key)?.pem())
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyFileError> {
    (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    })()
    .map_err(at(path))
}

pub(super) fn sync(folder: &Path) -> Result<(), KeyFileError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

/// A text file that nobody else may read; the mode is that of the file that is then read.
fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let file = File::open(path).map_err(at(path))?;
    let mode = file.metadata().map_err(at(path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    read_bounded(&file, path)
}

/// A secret of the operator's, from a file that nobody else may read.
pub fn read_secret_file(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    read_private(path)
}

fn read_bounded(file: &File, path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let mut text = Zeroizing::new(String::new());
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(at(path))?;
    if read as u64 > MAX_FILE { Err(malformed(path, "it is too long")) } else { Ok(text) }
}

pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let text = read_private(path)?;
    let bytes = Zeroizing::new(unb64(text.trim()).map_err(|_| malformed(path, "not base64url"))?);
    <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new).map_err(|_| malformed(path, "not 32 bytes"))
}

pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> KeyFileError {
    move |error| KeyFileError::File { path: path.to_owned(), error }
}

fn malformed(path: &Path, problem: impl std::fmt::Display) -> KeyFileError {
    KeyFileError::Malformed { path: path.to_owned(), problem: problem.to_string() }
}

fn unmade(path: &Path) -> impl Fn(rcgen::Error) -> KeyFileError {
    move |error| malformed(path, format_args!("no certificate can be made: {error}"))
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

    fn refused(home: &Path) -> String {
        Keys::load(home, &did()).err().expect("refused").to_string()
    }

    #[test]
    fn keys_that_others_may_read_are_refused() {
        let home = tempfile::tempdir().unwrap();
        create(home.path()).unwrap();
        let folder = home.path().join("keys");
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            for mode in [0o640, 0o604, 0o620] {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                let error = refused(home.path());
                assert!(error.contains(path.to_str().unwrap()) && error.contains("chmod 600"), "{error}");
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(refused(home.path()).contains("chmod 700"));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(Keys::load(home.path(), &did()).is_ok());
    }

    #[test]
    fn keys_are_never_overwritten_and_never_half_made() {
        let home = tempfile::tempdir().unwrap();
        let keys = create(home.path()).unwrap();
        assert!(matches!(create(home.path()), Err(KeyFileError::Exists(_))));
        assert_eq!(Keys::load(home.path(), &did()).unwrap().signing.public(), keys.signing.public());

        // a home whose certificate can't be written
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("certs/tls.pem/in-the-way")).unwrap();
        assert!(create(home.path()).is_err());
        assert!(!home.path().join("keys").exists());
        let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["certs"], "no secret is left behind");
        fs::remove_dir_all(home.path().join("certs")).unwrap();
        assert!(create(home.path()).is_ok());
    }

    #[test]
    fn a_broken_key_file_is_named_and_not_shown() {
        let home = tempfile::tempdir().unwrap();
        create(home.path()).unwrap();
        let path = home.path().join("keys/token.key");
        for (text, problem) in
            [("c2hvcnQ\n", "32 bytes"), ("not base64!\n", "base64url"), (&"A".repeat(70_000), "too long")]
        {
            fs::write(&path, text).unwrap();
            let error = refused(home.path());
            assert!(error.contains("token.key") && error.contains(problem), "{error}");
            assert!(!error.contains(text.trim()), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(refused(home.path()).contains("token.key"));
    }

    #[test]
    fn a_certificate_of_another_did_or_key_is_refused() {
        let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        create(home.path()).unwrap();
        create(other.path()).unwrap();
        let stranger = Did::parse("did:web:stranger.invalid").unwrap();
        assert!(Keys::load(home.path(), &stranger).err().unwrap().to_string().contains("did:web:stranger.invalid"));
        fs::copy(other.path().join("certs/tls.pem"), home.path().join("certs/tls.pem")).unwrap();
        assert!(refused(home.path()).contains("keys/tls.key"));
    }

    #[test]
    fn a_renewed_certificate_keeps_its_key() {
        let home = tempfile::tempdir().unwrap();
        let keys = create(home.path()).unwrap();
        let later = Timestamp::from_millis(1_764_000_000_000 + 700 * 86_400_000);
        let renewed = Keys::renew_certificate(home.path(), &did(), &[], &SystemRandom, later).unwrap();
        assert_eq!(renewed.certificate().spki, keys.certificate().spki);
        assert_ne!(renewed.certificate().thumbprint, keys.certificate().thumbprint);
        assert!(renewed.certificate().not_after > keys.certificate().not_after);
        assert_eq!(renewed.certificate().dids, [did()]);
    }

    #[test]
    fn each_role_has_a_key_of_its_own() {
        let home = tempfile::tempdir().unwrap();
        let keys = create(home.path()).unwrap();
        let all: BTreeSet<[u8; 32]> = [
            *keys.signing.seed(),
            *keys.token.seed(),
            *keys.log.seed(),
            *keys.cosigner.seed(),
            *keys.sealing.bytes(),
            *keys.release,
            *keys.master,
        ]
        .into();
        assert_eq!(all.len(), ROLES.len());
    }

    #[test]
    fn a_long_did_still_makes_a_certificate() {
        let home = tempfile::tempdir().unwrap();
        let long = Did::parse(format!("did:web:{}", "a".repeat(500))).unwrap();
        let hosts = ["localhost".to_owned(), "node.example".into(), "::1".into()];
        let keys = Keys::create(home.path(), &long, &hosts, &SystemRandom, Timestamp::from_millis(0)).unwrap();
        assert_eq!(keys.certificate().dids, [long]);
    }
}
