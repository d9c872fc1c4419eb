//! Keys that take another's place: made beside it, put there at the next start, when our newest statement names them.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    crypto::{Random, RandomExt, SealingKey, SigningKey, b64},
    id::Did,
    identity::{
        KeyFileError, Keys,
        keys::{at, read_secret, sync},
    },
};

/// Keys that can be rotated by a new statement. The log's key can't: a log is known by it. The TLS key's pin is what
/// partners know our connections by, and the `release` and `master` secrets have no public half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotating {
    /// Signs offers, agreements, receipts, statements.
    Signing,
    /// Opens what is sealed for us.
    Sealing,
    /// Signs transfer tokens; those that are out become void.
    Token,
}

impl Rotating {
    const ALL: [Self; 3] = [Self::Signing, Self::Sealing, Self::Token];

    /// As in the file's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Sealing => "sealing",
            Self::Token => "token",
        }
    }
}

fn next_key(home: &Path, role: Rotating) -> PathBuf {
    home.join("keys").join(format!("{}.next.key", role.as_str()))
}

impl Keys {
    /// Makes the key that takes this one's place at the connector's next start, where the statement that names it is
    /// signed by the key before. Until then it lies beside, as `<role>.next.key`.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] while one waits already.
    pub fn prepare_rotation(home: &Path, role: Rotating, random: &dyn Random) -> Result<(), KeyFileError> {
        let path = next_key(home, role);
        if path.exists() {
            return Err(KeyFileError::Exists(path));
        }
        let folder = home.join("keys");
        (|| {
            let mut staged =
                tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(&folder)?;
            let secret = Zeroizing::new(random.array::<32>());
            staged.write_all(Zeroizing::new(format!("{}\n", b64(&*secret))).as_bytes())?;
            staged.as_file().sync_all()?;
            staged.persist_noclobber(&path).map_err(|error| error.error)?;
            File::open(&folder)?.sync_all()
        })()
        .map_err(at(&path))
    }

    /// The keys as they will be after the rotation that waits; `None` if none does.
    pub fn rotated(home: &Path, did: &Did) -> Result<Option<Self>, KeyFileError> {
        let mut keys = None;
        for role in Rotating::ALL {
            let path = next_key(home, role);
            if !path.exists() {
                continue;
            }
            let secret = read_secret(&path)?;
            let keys = match &mut keys {
                Some(keys) => keys,
                none => none.insert(Self::load(home, did)?),
            };
            match role {
                Rotating::Signing => keys.signing = SigningKey::from_seed(*secret),
                Rotating::Sealing => keys.sealing = SealingKey::from_bytes(*secret),
                Rotating::Token => keys.token = SigningKey::from_seed(*secret),
            }
        }
        Ok(keys)
    }

    /// Puts the keys that waited into their place; what was there is gone. Called when our newest statement names them.
    pub fn finish_rotation(home: &Path) -> Result<(), KeyFileError> {
        for role in Rotating::ALL {
            let (next, place) = (next_key(home, role), home.join("keys").join(format!("{}.key", role.as_str())));
            if next.exists() {
                fs::rename(&next, &place).map_err(at(&place))?;
            }
        }
        sync(&home.join("keys"))
    }
}
