//! What sessions say: bytes that no other session says, nor the same one at another time or in the other direction.

use std::io;

/// Bytes of a block.
pub(crate) const BLOCK: usize = 1024;

/// Who says it.
#[derive(Clone, Copy)]
pub(crate) enum From {
    Client,
    Server,
}

/// When it is said.
#[derive(Clone, Copy)]
pub(crate) enum When {
    /// It is under way when the link is cut.
    Before,
    /// It is written when the link has been cut.
    After,
}

/// The block that this session's end says in this round.
pub(crate) fn block(session: u32, round: u32, from: From, when: When) -> [u8; BLOCK] {
    let kind = (from as u64) << 1 | when as u64;
    let mut state = u64::from(session) << 32 | u64::from(round) << 2 | kind;
    let mut block = [0; BLOCK];
    for word in block.chunks_exact_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ mixed >> 31).to_be_bytes());
    }
    block
}

/// An error unless they are the same.
pub(crate) fn check(read: &[u8; BLOCK], expected: &[u8; BLOCK]) -> io::Result<()> {
    if read == expected {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "bytes were lost, repeated, reordered or another session's",
        ))
    }
}
