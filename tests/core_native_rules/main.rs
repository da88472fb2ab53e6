//! The rules of a native session (`docs/PROTOCOL.md`, "native"), one end opposite a script.

#[path = "../support/core_scripted.rs"]
mod core_scripted;

mod credit;
mod endings;
mod errors;
mod resumes;
mod timers;
