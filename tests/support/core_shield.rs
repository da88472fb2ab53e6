//! What protects the links of a pair: nothing, or Noise, whose records the ends' drivers seal and open as those with sockets do.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;

use unbroken::{
    HandshakeError,
    protocol::native::{ClientProtection, ServerProtection},
};

#[cfg(feature = "noise")]
use unbroken::protocol::noise::{
    ClientKeys, Key, Pattern, Records, ServerKeys, Suite, TAG_LEN, public_key,
};

/// A link that is not protected has none.
#[cfg(not(feature = "noise"))]
type Records = std::convert::Infallible;

/// Length of what goes before a record.
const HEAD_LEN: usize = 2;

#[cfg(feature = "noise")]
const CLIENT_PRIVATE: Key = [0x11; 32];
#[cfg(feature = "noise")]
const SERVER_PRIVATE: Key = [0x22; 32];
#[cfg(feature = "noise")]
const PSK: Key = [0x33; 32];

/// What protects all links of a pair.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shield {
    None,
    #[cfg(feature = "noise")]
    Noise {
        pattern: Pattern,
        suite: Suite,
        /// The most bytes of plaintext an end puts into a record.
        record: usize,
    },
}

impl Shield {
    /// How long a message of the server's is whose frame has this length.
    pub(crate) fn answer_len(self, frame: usize) -> usize {
        match self {
            Self::None => frame,
            #[cfg(feature = "noise")]
            Self::Noise { pattern, .. } => HEAD_LEN + pattern.second_len(frame),
        }
    }

    /// How long a client's message is, without the prelude, whose frame has this length.
    pub(crate) fn request_len(self, frame: usize) -> usize {
        match self {
            Self::None => frame,
            #[cfg(feature = "noise")]
            Self::Noise { pattern, .. } => HEAD_LEN + pattern.first_len(frame),
        }
    }

    pub(crate) fn for_client(self, ephemeral: [u8; 32]) -> ClientProtection {
        let _ = ephemeral;
        match self {
            Self::None => ClientProtection::None,
            #[cfg(feature = "noise")]
            Self::Noise { pattern, suite, .. } => ClientProtection::Noise {
                keys: match pattern {
                    Pattern::Nn => ClientKeys::Anonymous,
                    Pattern::NnPsk0 => ClientKeys::Preshared(PSK.into()),
                    Pattern::Nk => ClientKeys::Server(public_key(&SERVER_PRIVATE)),
                    Pattern::Ik => ClientKeys::Mutual {
                        private: CLIENT_PRIVATE.into(),
                        server: public_key(&SERVER_PRIVATE),
                    },
                },
                suite,
                ephemeral: ephemeral.into(),
            },
        }
    }

    pub(crate) fn for_server(self, ephemeral: [u8; 32]) -> ServerProtection {
        let _ = ephemeral;
        match self {
            Self::None => ServerProtection::None,
            #[cfg(feature = "noise")]
            Self::Noise { pattern, .. } => ServerProtection::Noise {
                keys: match pattern {
                    Pattern::Nn => ServerKeys::Anonymous,
                    Pattern::NnPsk0 => ServerKeys::Preshared(PSK.into()),
                    Pattern::Nk => ServerKeys::Private(SERVER_PRIVATE.into()),
                    Pattern::Ik => ServerKeys::Mutual(SERVER_PRIVATE.into()),
                },
                ephemeral: ephemeral.into(),
            },
        }
    }
}

/// Takes a machine's records, if its link is to be put under them now.
macro_rules! records {
    ($machine:expr) => {{
        #[cfg(feature = "noise")]
        let records = $machine.take_records();
        #[cfg(not(feature = "noise"))]
        let records = {
            let _ = &$machine;
            None
        };
        records
    }};
}
pub(crate) use records;

/// The links of an end that are under their records.
pub(crate) struct Sealed {
    links: BTreeMap<usize, Layer>,
    /// The most bytes of plaintext in a record.
    record: usize,
}

struct Layer {
    records: Records,
    /// Records the link has not taken yet.
    out: Vec<u8>,
    /// What has come of a record that is not whole.
    input: Vec<u8>,
    /// Whether this direction was said to end.
    shut: bool,
}

impl Layer {
    fn seal(&mut self, plaintext: &[u8]) {
        let record = self.records.sealed(plaintext);
        let len = u16::try_from(record.len()).expect("records are short");
        self.out.extend(len.to_be_bytes());
        self.out.extend(record);
    }
}

impl Sealed {
    pub(crate) fn new(shield: Shield) -> Self {
        Self {
            links: BTreeMap::new(),
            record: match shield {
                Shield::None => 0,
                #[cfg(feature = "noise")]
                Shield::Noise { record, .. } => record,
            },
        }
    }

    /// A link is put under its records, if there are any.
    pub(crate) fn put(&mut self, link: usize, records: Option<Records>) {
        let layer = records.map(|records| Layer {
            records,
            out: Vec::new(),
            input: Vec::new(),
            shut: false,
        });
        if let Some(layer) = layer {
            assert!(self.links.insert(link, layer).is_none(), "once");
        }
    }

    /// Links are numbered anew.
    pub(crate) fn forget(&mut self, link: usize) {
        self.links.remove(&link);
    }

    pub(crate) fn holds(&self, link: usize) -> bool {
        self.links.contains_key(&link)
    }

    /// Whether the link was told that nothing follows, if it is to be, and has taken it all.
    pub(crate) fn has_ended(&self, link: usize) -> bool {
        self.links
            .get(&link)
            .is_none_or(|layer| layer.shut && layer.out.is_empty())
    }

    /// At most `most` bytes for the link. `say` gives what is to be sealed, at most as much as it is asked for, and whether nothing will
    /// follow it.
    pub(crate) fn transmit(
        &mut self,
        link: usize,
        most: usize,
        mut say: impl FnMut(usize) -> (Vec<u8>, bool),
    ) -> Vec<u8> {
        let layer = self.links.get_mut(&link).expect("it is under records");
        while !layer.shut && layer.out.len() < most {
            let (plaintext, ends) = say(self.record);
            assert!(plaintext.len() <= self.record);
            if plaintext.is_empty() && !ends {
                break;
            }
            if !plaintext.is_empty() {
                layer.seal(&plaintext);
            }
            if ends {
                layer.seal(&[]);
                layer.shut = true;
            }
        }
        let most = most.min(layer.out.len());
        layer.out.drain(..most).collect()
    }

    /// What was in the records that `bytes` make whole.
    pub(crate) fn open(&mut self, link: usize, bytes: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let layer = self.links.get_mut(&link).expect("it is under records");
        layer.input.extend(bytes);
        let mut plaintext = Vec::new();
        let mut rest = &layer.input[..];
        while let Some((len, behind)) = rest.split_first_chunk::<HEAD_LEN>() {
            let len = u16::from_be_bytes(*len);
            let Some((record, behind)) = behind.split_at_checked(len.into()) else {
                break;
            };
            plaintext.extend(layer.records.opened(record)?);
            rest = behind;
        }
        let used = layer.input.len() - rest.len();
        layer.input.drain(..used);
        Ok(plaintext)
    }
}

trait Cipher {
    fn sealed(&mut self, plaintext: &[u8]) -> Vec<u8>;
    fn opened(&mut self, record: &[u8]) -> Result<Vec<u8>, HandshakeError>;
}

#[cfg(feature = "noise")]
impl Cipher for Records {
    fn sealed(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut record = vec![0; plaintext.len() + TAG_LEN];
        let len = self.seal(plaintext, &mut record).expect("it fits");
        assert_eq!(len, record.len());
        record
    }

    fn opened(&mut self, record: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let mut plaintext = vec![0; record.len()];
        let len = self.open(record, &mut plaintext)?;
        plaintext.truncate(len);
        Ok(plaintext)
    }
}

#[cfg(not(feature = "noise"))]
impl Cipher for Records {
    fn sealed(&mut self, _: &[u8]) -> Vec<u8> {
        match *self {}
    }

    fn opened(&mut self, _: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        match *self {}
    }
}
