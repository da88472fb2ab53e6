//! Frames as bytes. Integers are big-endian.

/// Length of a frame's header: its type, and the length of its payload in 24 bits.
pub(super) const HEADER_LEN: usize = 4;

/// A frame being written, of `N` bytes at most, header included.
pub(super) struct Writer<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Writer<N> {
    /// Starts a frame of this type with `len` bytes of payload, all of which must fit unless it is DATA.
    pub(super) fn new(frame: u8, len: usize) -> Self {
        let [_, a, b, c] = (len as u32).to_be_bytes();
        let writer = Self {
            bytes: [0; N],
            len: 0,
        };
        writer.put(&[frame, a, b, c])
    }

    pub(super) fn put(mut self, field: &[u8]) -> Self {
        self.bytes[self.len..self.len + field.len()].copy_from_slice(field);
        self.len += field.len();
        self
    }

    pub(super) fn u16(self, number: u16) -> Self {
        self.put(&number.to_be_bytes())
    }

    pub(super) fn u32(self, number: u32) -> Self {
        self.put(&number.to_be_bytes())
    }

    pub(super) fn u64(self, number: u64) -> Self {
        self.put(&number.to_be_bytes())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// A frame of a fixed length, once all of its fields have been put.
    pub(super) fn finish(self) -> [u8; N] {
        debug_assert_eq!(self.len, N, "a field is missing");
        self.bytes
    }
}

/// The type and the length that a header announces.
pub(super) fn header(bytes: [u8; HEADER_LEN]) -> (u8, u32) {
    let [frame, a, b, c] = bytes;
    (frame, u32::from_be_bytes([0, a, b, c]))
}

/// The fields of a payload, in turn. Its length has been checked: reading beyond it panics.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_at(N);
        self.0 = rest;
        let mut array = [0; N];
        array.copy_from_slice(field);
        array
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }
}
