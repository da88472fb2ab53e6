//! The codes of a reset. 0 is a clean end, 1 to [`APPLICATION_MAX`] are the application's, for
//! [`Handle::close`](crate::Handle::close), and those above are the transport's own.

/// Both directions ended in order.
pub const CLEAN: u32 = 0;
/// The greatest code an application may give.
pub const APPLICATION_MAX: u32 = 0xffff_feff;
/// The transport was dropped with bytes unread.
pub const DROPPED_UNREAD: u32 = 0xffff_ff01;
/// The transport was dropped, and what it had written was not acknowledged within its linger time.
pub const LINGER: u32 = 0xffff_ff02;
/// The server is being shut down.
pub const SHUTTING_DOWN: u32 = 0xffff_ff03;
/// One end can go on no more: its runtime stopped, or something went wrong inside.
pub const ABANDONED: u32 = 0xffff_ff04;
