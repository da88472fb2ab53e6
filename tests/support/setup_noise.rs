//! Tests of native under Noise.

use unbroken::Security;

/// What both ends are configured with.
pub(crate) fn security() -> Security {
    Security::anonymous()
}
