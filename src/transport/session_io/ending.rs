//! How a session and its last link end.

use std::{pin::Pin, task::Poll};

use tokio::io::AsyncWrite;

use super::{Closing, SessionIo};
use crate::{error::CloseReason, transport::effects::Effects};

impl SessionIo {
    /// Ends the session at once, unless it is over already.
    pub(in crate::transport) fn close(&mut self, reason: CloseReason, fx: &mut Effects) {
        self.session.close(reason);
        self.look(fx);
    }

    /// Ends the session with an error at both ends.
    pub(in crate::transport) fn reset(&mut self, code: u32, fx: &mut Effects) {
        self.session.reset(code, fx.now());
        fx.wake_keeper = true;
        self.look(fx);
    }

    pub(in crate::transport) fn drop_transport(&mut self, fx: &mut Effects) {
        self.session.drop_transport(fx.now());
        fx.wake_keeper = true;
        self.look(fx);
    }

    /// Whether the newest link is to be closed in order, or is being closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing != Closing::No || self.session.wants_close()
    }

    /// Closes in order a link that has had everything.
    pub(super) fn finish(&mut self, fx: &mut Effects) {
        if self.closing == Closing::No && self.session.wants_close() && !self.unflushed {
            self.closing = Closing::Shutting;
        }
        if let (Closing::Shutting, Some(attached)) = (self.closing, &mut self.link) {
            match Pin::new(&mut attached.link).poll_shutdown(&mut self.wakers.write()) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.closing = Closing::Discarding;
                    self.close_by.get_or_insert(fx.now() + self.patience());
                }
                Poll::Ready(Err(error)) => {
                    let id = attached.id;
                    self.link_failed(id, &error, fx);
                }
            }
        }
    }
}
