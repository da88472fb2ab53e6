//! A core for each end. Where the scheduler decides, two threads that wake each other may share one for long.

use unbroken::BoxError;

/// Two that this process may run on.
#[derive(Clone, Copy)]
pub(crate) struct Cores([usize; 2]);

impl Cores {
    #[cfg(target_os = "linux")]
    pub(crate) fn of_this_process() -> Result<Self, BoxError> {
        use rustix::thread::{CpuSet, sched_getaffinity};
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        match (cores.next(), cores.next()) {
            (Some(one), Some(other)) => Ok(Self([one, other])),
            _ => Err("there are no two cores to pin the ends to".into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of_this_process() -> Result<Self, BoxError> {
        Err("threads are pinned on Linux only".into())
    }

    /// Keeps this thread, and those it starts, on the core of this end, 0 or 1.
    #[cfg(target_os = "linux")]
    pub(crate) fn pin(self, end: usize) -> Result<(), BoxError> {
        use rustix::thread::{CpuSet, sched_setaffinity};
        let mut only = CpuSet::new();
        only.set(self.0[end]);
        Ok(sched_setaffinity(None, &only)?)
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn pin(self, _: usize) -> Result<(), BoxError> {
        unreachable!("there are none to be had")
    }
}
