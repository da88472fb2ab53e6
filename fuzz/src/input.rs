//! How the bytes of an input become what a target works with.
//!
//! Everything is drawn from the front, and small things take one byte: so a changed byte changes one thing, and seeds can be written
//! by hand. Beyond the end of the input everything is 0.

use arbitrary::Unstructured;

/// A choice of `count` things.
pub fn pick(input: &mut Unstructured<'_>, count: u8) -> u8 {
    byte(input) % count
}

/// One byte.
pub fn byte(input: &mut Unstructured<'_>) -> u8 {
    input.arbitrary().unwrap_or(0)
}

/// A size in bytes: small ones as they are, larger ones by their order, up to 2^20 and a half.
pub fn size(input: &mut Unstructured<'_>) -> usize {
    match byte(input) {
        small @ 0..192 => small.into(),
        large => 192 << ((large - 192) / 5),
    }
}

/// An offset: mostly where a short stream has its offsets, or where numbers of 32 and of 64 bits have their ends.
pub fn offset(input: &mut Unstructured<'_>) -> u64 {
    match byte(input) {
        small @ 0..192 => small.into(),
        order @ 192..208 => 192 << (order - 192),
        about @ 208..224 => (1 << 32) - 8 + u64::from(about - 208),
        last @ 224..248 => u64::MAX - u64::from(last - 224),
        248.. => input.arbitrary().unwrap_or(0),
    }
}

/// What is left of the input.
pub fn rest<'a>(input: &mut Unstructured<'a>) -> &'a [u8] {
    let len = input.len();
    input.bytes(len).unwrap_or(&[])
}

/// The sizes of the pieces in which bytes come in, over and over.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    sizes: [u8; 4],
    next: usize,
}

impl Pieces {
    /// Everything at once, as far as it is asked for.
    pub const WHOLE: Self = Self {
        sizes: [0; 4],
        next: 0,
    };

    /// Of these sizes; 0 stands for everything.
    pub fn new(sizes: [u8; 4]) -> Self {
        Self { sizes, next: 0 }
    }

    /// Draws 4 sizes.
    pub fn draw(input: &mut Unstructured<'_>) -> Self {
        Self::new(std::array::from_fn(|_| byte(input)))
    }

    /// How long the next piece of `most` bytes is: at least 1 unless `most` is 0.
    pub fn next(&mut self, most: usize) -> usize {
        let size = self.sizes[self.next];
        self.next = (self.next + 1) % self.sizes.len();
        match size {
            0 => most,
            size => most.min(size.into()),
        }
    }
}
