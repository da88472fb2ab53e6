//! A codec that decodes nothing right once a byte was lost, doubled or exchanged.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// Most bytes of a difference: seven bits in each.
const LONGEST: usize = 10;

/// Each value as its difference to the one before, seven bits a byte, the last with the top bit set.
#[derive(Debug, Default)]
pub(super) struct Differences {
    before: u64,
    values: u64,
    ended: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Value(u64),
    /// The stream has ended behind a value, after so many.
    End {
        values: u64,
    },
}

impl Encoder<u64> for Differences {
    type Error = io::Error;

    fn encode(&mut self, value: u64, to: &mut BytesMut) -> io::Result<()> {
        let mut difference = value.wrapping_sub(self.before);
        self.before = value;
        while difference > 0x7f {
            to.put_u8(difference as u8 & 0x7f);
            difference >>= 7;
        }
        to.put_u8(difference as u8 | 0x80);
        Ok(())
    }
}

impl Decoder for Differences {
    type Item = Decoded;
    type Error = io::Error;

    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<Decoded>> {
        let Some(last) = from.iter().position(|byte| byte & 0x80 != 0) else {
            return Ok(None);
        };
        if last >= LONGEST {
            return Err(io::Error::other("a difference is too long"));
        }
        let mut difference = 0;
        for (place, byte) in from[..=last].iter().enumerate() {
            difference |= u64::from(byte & 0x7f) << (7 * place);
        }
        from.advance(last + 1);
        self.before = self.before.wrapping_add(difference);
        self.values += 1;
        Ok(Some(Decoded::Value(self.before)))
    }

    fn decode_eof(&mut self, from: &mut BytesMut) -> io::Result<Option<Decoded>> {
        if let Some(decoded) = self.decode(from)? {
            return Ok(Some(decoded));
        }
        if !from.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let first = !std::mem::replace(&mut self.ended, true);
        Ok(first.then_some(Decoded::End {
            values: self.values,
        }))
    }
}
