//! What a bench is told on its command line.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

/// Pairs of `--name value`, and flags, whose value is nothing.
pub(crate) struct Options(Vec<(String, String)>);

impl Options {
    /// Those of this program; an error on any that is neither `known` nor a flag, or is known and comes without a value.
    pub(crate) fn of_this_program(known: &[&str], flags: &[&str]) -> Result<Self, String> {
        let mut options = Vec::new();
        // cargo passes `--bench` too.
        let mut arguments = std::env::args().skip(1).filter(|given| given != "--bench");
        while let Some(name) = arguments.next() {
            if flags.contains(&name.as_str()) {
                options.push((name, String::new()));
                continue;
            }
            if !known.contains(&name.as_str()) {
                return Err(format!(
                    "{name} is none of {}",
                    [known, flags].concat().join(", ")
                ));
            }
            let value = arguments.next();
            let value = value.ok_or_else(|| format!("{name} comes without a value"))?;
            options.push((name, value));
        }
        Ok(Self(options))
    }

    /// What was given as `name`; the last, of several.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let given = self.0.iter().rev().find(|(given, _)| given == name);
        given.map(|(_, value)| value.as_str())
    }

    /// The same read as a number from `least` on, or `default` without it.
    pub(crate) fn number<T>(&self, name: &str, least: T, default: T) -> Result<T, String>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        let number = text.parse().ok().filter(|number| *number >= least);
        number.ok_or_else(|| format!("{name} takes a number from {least} on, not {text}"))
    }

    /// The directory given as `--out`, or else `bench` in cargo's target directory.
    pub(crate) fn out(&self) -> PathBuf {
        let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let default = || built.with_file_name("bench");
        self.text("--out").map_or_else(default, PathBuf::from)
    }
}
