//! A home copied twice is two nodes and one log. A store remembers the folder that it was made in.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use crate::node::StartError;

const FILE: &str = "place";

/// Whether the store is where it was made; `Err(None)` if it was copied.
pub fn check(folder: &Path, moved: bool) -> Result<(), Option<StartError>> {
    let path = folder.join(FILE);
    let failed = |error: io::Error| Some(StartError::File { path: path.clone(), error });
    let meta = fs::metadata(folder).map_err(failed)?;
    let here = format!("{}:{}\n", meta.dev(), meta.ino());
    match fs::read_to_string(&path) {
        Ok(made) if made == here => Ok(()),
        Ok(_) if !moved => Err(None),
        Ok(_) => super::write(folder, FILE, here.as_bytes(), 0o600).map_err(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            super::write(folder, FILE, here.as_bytes(), 0o600).map_err(Some)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_store_is_the_same_and_a_copied_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, copy) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("3"));
        fs::create_dir(&one).unwrap();
        assert!(check(&one, false).is_ok());
        fs::rename(&one, &two).unwrap();
        assert!(check(&two, false).is_ok());
        fs::create_dir(&copy).unwrap();
        fs::copy(two.join(FILE), copy.join(FILE)).unwrap();
        assert!(matches!(check(&copy, false), Err(None)));
        assert!(check(&copy, true).is_ok());
        assert!(check(&copy, false).is_ok(), "accepted once");
    }
}
