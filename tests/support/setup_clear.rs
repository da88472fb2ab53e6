//! Tests of native in the clear: they look at its bytes on the wire, or speak them.

use unbroken::Security;

/// What both ends are configured with.
pub(crate) fn security() -> Security {
    Security::none()
}
