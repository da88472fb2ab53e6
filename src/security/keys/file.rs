//! Files that hold one secret key each: a line of text.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

use zeroize::Zeroizing;

use super::{KeyError, KeyKind, text};
use crate::protocol::noise::Key;

/// A file that holds a key is shorter, in bytes.
const MAX_LEN: usize = 256;

/// Writes `text` as the one line of a new file, which is gone again if that fails.
pub(super) fn save(path: &Path, text: &str) -> Result<(), KeyError> {
    create(path, |file| {
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")
    })
    .map_err(|source| failed(path, source))
}

/// Creates a file of the owner's alone, and removes it if it cannot be filled.
pub(super) fn create(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let filled = fill(&mut file)
        .and_then(|()| own(&file))
        .and_then(|()| file.sync_all());
    if filled.is_err() {
        // The error that matters is the one that led here.
        let _ = fs::remove_file(path);
    }
    filled
}

/// Gives the owner what a umask may have withheld.
fn own(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// The key of this kind that the file holds.
pub(super) fn load(path: &Path, kind: KeyKind) -> Result<Zeroizing<Key>, KeyError> {
    // To open a pipe would wait for its other end, and to open a device can do anything.
    let before = fs::metadata(path).map_err(|source| failed(path, source))?;
    check(path, &before)?;
    let mut file = File::open(path).map_err(|source| failed(path, source))?;
    // What stands behind the path may have changed: what counts is the file that is open.
    let metadata = file.metadata().map_err(|source| failed(path, source))?;
    check(path, &metadata)?;

    let mut content = Zeroizing::new([0; MAX_LEN]);
    let len = fill(&mut file, &mut *content).map_err(|source| failed(path, source))?;
    if len == MAX_LEN {
        return Err(KeyError::TooLong {
            path: path.to_owned(),
        });
    }
    text::read(kind, &content[..len]).map_err(|source| KeyError::Content {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn check(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyError> {
    if !metadata.is_file() {
        return Err(KeyError::NotRegular {
            path: path.to_owned(),
        });
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Permissions {
                path: path.to_owned(),
                mode,
            });
        }
    }
    Ok(())
}

/// Reads until the end of the file or of `content`, and returns how much that was.
fn fill(file: &mut File, content: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < content.len() {
        match file.read(&mut content[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

fn failed(path: &Path, source: io::Error) -> KeyError {
    KeyError::File {
        path: path.to_owned(),
        source,
    }
}
