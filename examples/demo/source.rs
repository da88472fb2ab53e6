//! The file that is sent: the user's own, or one made for the run.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use crate::BoxError;

/// Bytes made or hashed at once.
const BLOCK: usize = 1 << 20;

/// A file, its size and its digest.
pub(crate) struct Source {
    path: PathBuf,
    bytes: u64,
    sha256: String,
    /// Removed with the source.
    temporary: Option<TemporaryDir>,
}

impl Source {
    /// The user's own file, hashed.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, BoxError> {
        let named = path.display().to_string();
        let hashed = spawn_blocking(move || {
            let mut file = File::open(&path)?;
            let mut digest = Sha256::new();
            let mut block = vec![0; BLOCK];
            let mut bytes = 0;
            loop {
                match file.read(&mut block)? {
                    0 => break,
                    read => {
                        digest.update(&block[..read]);
                        bytes += read as u64;
                    }
                }
            }
            Ok::<_, io::Error>(Self {
                path,
                bytes,
                sha256: hex(&digest.finalize()),
                temporary: None,
            })
        });
        hashed
            .await?
            .map_err(|error| format!("{named}: {error}").into())
    }

    /// Pseudo-random bytes of the seed, in the system's directory for temporary files.
    pub(crate) async fn make(bytes: u64, seed: u64) -> Result<Self, BoxError> {
        let made = spawn_blocking(move || {
            let dir = TemporaryDir::new()?;
            let path = dir.0.join("file");
            let mut file = File::create(&path)?;
            let mut rng = StdRng::seed_from_u64(seed);
            let mut digest = Sha256::new();
            let mut block = vec![0; BLOCK];
            let mut left = bytes;
            while left > 0 {
                let size = left.min(BLOCK as u64) as usize;
                rng.fill_bytes(&mut block[..size]);
                digest.update(&block[..size]);
                file.write_all(&block[..size])?;
                left -= size as u64;
            }
            Ok::<_, io::Error>(Self {
                path,
                bytes,
                sha256: hex(&digest.finalize()),
                temporary: Some(dir),
            })
        });
        made.await?
            .map_err(|error| format!("cannot make the file to send: {error}").into())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its SHA-256, in hex.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What it is, for people.
    pub(crate) fn name(&self) -> String {
        match self.temporary {
            Some(_) => "pseudo-random bytes".into(),
            None => self.path.display().to_string(),
        }
    }
}

struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn new() -> io::Result<Self> {
        let name = format!("unbroken-demo-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Lower case, as `sha256sum` prints it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
