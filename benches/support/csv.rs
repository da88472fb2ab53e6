//! Figures as files, for whoever draws them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Writes a table to `bench/NAME.csv` in the target directory, and returns where that is.
pub(crate) fn write(name: &str, header: &str, rows: &[String]) -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    // TARGET/release/deps/PROGRAM
    let target = program.ancestors().nth(3).unwrap_or(Path::new("."));
    let folder = target.join("bench");
    fs::create_dir_all(&folder)?;
    let path = folder.join(name).with_extension("csv");
    fs::write(&path, format!("{header}\n{}\n", rows.join("\n")))?;
    Ok(path)
}
