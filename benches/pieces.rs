//! The pieces by themselves, without I/O: the replay buffer, native's frames, Noise's records, snet's keys and keystream, and the whole
//! handshakes of both ends together.

use std::{hint::black_box, time::Duration};

use criterion::{
    BatchSize, BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime,
};
use rc4::{KeyInit, Rc4, StreamCipher as _};
use unbroken::protocol::{
    Handshake, ReplayBuffer, Role, Session,
    native::{self, ClientProtection, Decoder, Frame, Head, Item, ServerProtection, SessionSecret},
    noise::{
        ClientKeys, Initiator, Pattern, Records, Responder, ServerKeys, Suite, TAG_LEN, public_key,
    },
    snet::{
        self, Challenge, CipherChoice, Counts, KeyAgreement, Opened, PrivateKey, SessionKey,
        SnetSession,
    },
};

const KIB: usize = 1024;
const SIZES: [usize; 2] = [KIB, 64 * KIB];
/// What a session keeps by default.
const WINDOW: usize = 1 << 20;
/// Of plaintext.
const RECORD: usize = 16 * KIB;
const SECRET: [u8; 32] = [5; 32];
const SERVER_PRIVATE: [u8; 32] = [0x22; 32];

fn size_name(size: usize) -> String {
    format!("{} KiB", size / KIB)
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    criterion.benchmark_group(name)
}

fn bytes(size: usize) -> Throughput {
    Throughput::Bytes(size as u64)
}

/// In a buffer that is full: bytes go in, are looked at as if to be sent, and as many of the oldest go.
fn replay_buffer(criterion: &mut Criterion) {
    let mut group = group(criterion, "replay buffer");
    for size in SIZES {
        let input = vec![7; size];
        group.throughput(bytes(size));
        let mut replay = ReplayBuffer::new(WINDOW);
        replay.push(&vec![7; WINDOW - size]);
        group.bench_function(format!("push, from, trim {}", size_name(size)), |bencher| {
            bencher.iter(|| {
                let end = replay.end();
                assert_eq!(replay.push(black_box(&input)), size);
                black_box(replay.from(end));
                replay.trim(replay.start() + size as u64);
            });
        });
        let mut copy = vec![0; WINDOW];
        let mut at = 0;
        group.bench_function(format!("copy into a Vec {}", size_name(size)), |bencher| {
            bencher.iter(|| {
                // Through as much memory as the buffer has.
                copy[at..at + size].copy_from_slice(black_box(&input));
                black_box(&copy[at..at + size]);
                at = (at + size) % WINDOW;
            });
        });
    }
}

fn frames(criterion: &mut Criterion) {
    let mut group = group(criterion, "native frames");
    let ack = Frame::Ack {
        received: 1 << 40,
        limit: 1 << 41,
    };
    let data = Frame::Data {
        len: native::MAX_DATA,
    };
    let encoded = || {
        let mut head = Head::new();
        assert!(head.push(black_box(&ack)) && head.push(black_box(&data)));
        head
    };
    group.bench_function("encode an ACK and a DATA header", |bencher| {
        bencher.iter(|| black_box(encoded()));
    });
    let head = encoded();
    group.bench_function("decode an ACK and a DATA header", |bencher| {
        bencher.iter(|| {
            let mut decoder = Decoder::new();
            let mut input = black_box(head.as_bytes());
            while let (used, Some(item)) = decoder.decode(input).expect("the frames are right") {
                input = &input[used..];
                black_box(item);
            }
        });
    });
    let stream = [head.as_bytes(), &vec![7; native::MAX_DATA]].concat();
    let mut decoder = Decoder::new();
    group.bench_function(
        "decode an ACK and 64 KiB of DATA, in reads of 16 KiB",
        |bencher| {
            bencher.iter(|| {
                let mut payload = 0;
                for mut read in black_box(&stream).chunks(16 * KIB) {
                    while let (used, Some(item)) =
                        decoder.decode(read).expect("the frames are right")
                    {
                        read = &read[used..];
                        if let Item::Payload(count) = item {
                            payload += count;
                        }
                    }
                }
                assert_eq!(payload, native::MAX_DATA);
            });
        },
    );
}

/// Full-sized numbers, as random ones are.
fn private(odd: u64) -> PrivateKey {
    PrivateKey::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(odd)).expect("it is odd")
}

fn snet_keys(criterion: &mut Criterion) {
    let mut group = group(criterion, "snet keys");
    let (ours, theirs) = (private(1), private(3).public());
    group.bench_function("DH64 public key", |bencher| {
        bencher.iter(|| black_box(&ours).public());
    });
    group.bench_function("DH64 shared secret", |bencher| {
        bencher.iter(|| black_box(&ours).agree(black_box(theirs)));
    });
    let key = SessionKey::new(*b"8 bytes.");
    let counts = Counts {
        sent: 1 << 40,
        received: 1 << 41,
    };
    group.bench_function("MD5 proof of a resume", |bencher| {
        bencher.iter(|| snet::ResumeRequest::new(black_box(7), counts, black_box(&key)));
    });
    group.bench_function("RC4 key schedule, rc4 crate", |bencher| {
        bencher.iter(|| Rc4::new_from_slice(black_box(b"8 bytes.")).expect("8 bytes are a key"));
    });
}

fn snet_session(role: Role, cipher: CipherChoice) -> SnetSession {
    let opened = Opened {
        id: 7,
        key: SessionKey::new(*b"8 bytes."),
    };
    let settings = snet::Settings {
        history: WINDOW,
        resume_window: Duration::from_secs(300),
        linger: Duration::from_secs(60),
        silence: None,
        fin_is_close: false,
        cipher,
    };
    let now = std::time::Instant::now();
    let mut session = SnetSession::new(role, opened, settings, now);
    let attached = session.attach(0, Counts::default(), 0, now);
    attached.expect("it is the first link");
    session
}

/// What a session does to 64 KiB of its stream beside the cipher alone.
fn snet_stream(criterion: &mut Criterion) {
    const SIZE: usize = 64 * KIB;
    let mut group = group(criterion, "snet stream, 64 KiB");
    group.throughput(bytes(SIZE));
    let input = vec![7; SIZE];
    let now = std::time::Instant::now();
    for (name, cipher) in [("plain", CipherChoice::Plain), ("RC4", CipherChoice::Rc4)] {
        let mut session = snet_session(Role::Client, cipher);
        group.bench_function(format!("write and transmit, {name}"), |bencher| {
            bencher.iter(|| {
                assert_eq!(session.write(black_box(&input)), SIZE);
                black_box(session.transmit(now));
                session.transmitted(SIZE);
            });
        });
    }
    // In place; without a cipher there is nothing to do.
    let mut session = snet_session(Role::Server, CipherChoice::Rc4);
    let mut buffer = input.clone();
    group.bench_function("receive, RC4", |bencher| {
        bencher.iter(|| {
            let arrived = session.receive(0, black_box(&mut buffer), now);
            assert_eq!(arrived.fresh, 0..SIZE);
        });
    });
    let mut rc4 = Rc4::new_from_slice(b"8 bytes.").expect("8 bytes are a key");
    let mut buffer = input;
    group.bench_function("rc4 crate alone", |bencher| {
        bencher.iter(|| rc4.apply_keystream(black_box(&mut buffer)));
    });
}

fn client_keys(pattern: Pattern) -> ClientKeys {
    match pattern {
        Pattern::Nn => ClientKeys::Anonymous,
        Pattern::NnPsk0 => ClientKeys::Preshared(SECRET.into()),
        Pattern::Nk => ClientKeys::Server(public_key(&SERVER_PRIVATE)),
        Pattern::Ik => ClientKeys::Mutual {
            private: [0x11; 32].into(),
            server: public_key(&SERVER_PRIVATE),
        },
    }
}

fn server_keys(pattern: Pattern) -> ServerKeys {
    match pattern {
        Pattern::Nn => ServerKeys::Anonymous,
        Pattern::NnPsk0 => ServerKeys::Preshared(SECRET.into()),
        Pattern::Nk => ServerKeys::Private(SERVER_PRIVATE.into()),
        Pattern::Ik => ServerKeys::Mutual(SERVER_PRIVATE.into()),
    }
}

/// Both ends' of a link.
fn records(suite: Suite) -> (Records, Records) {
    let client = client_keys(Pattern::Nn);
    let server = server_keys(Pattern::Nn);
    let mut client = Initiator::new(client, suite, b"prologue", [1; 32].into());
    let mut server = Responder::new(server, suite, b"prologue", [2; 32].into());
    let first = client.first(b"").expect("it is the first message");
    server.first(&first).expect("it is the client's");
    let (second, server) = server.second(b"").expect("the first is in");
    let (_, client) = client.second(&second).expect("it is the server's");
    (client, server)
}

fn noise_records(criterion: &mut Criterion) {
    let mut group = group(criterion, "Noise records, 16 KiB");
    group.throughput(bytes(RECORD));
    for (name, suite) in [("AES-GCM", Suite::AesGcm), ("ChaCha20", Suite::ChaChaPoly)] {
        let plaintext = vec![7; RECORD];
        let mut record = vec![0; RECORD + TAG_LEN];
        let (mut client, _) = records(suite);
        group.bench_function(format!("seal, {name}"), |bencher| {
            bencher.iter(|| client.seal(black_box(&plaintext), &mut record));
        });
        let (mut client, mut server) = records(suite);
        let mut opened = vec![0; RECORD + TAG_LEN];
        // Each record opens once.
        let mut sealed = || {
            let mut record = vec![0; RECORD + TAG_LEN];
            let sealed = client.seal(&plaintext, &mut record);
            sealed.expect("the record has room");
            record
        };
        group.bench_function(format!("open, {name}"), |bencher| {
            bencher.iter_batched_ref(
                &mut sealed,
                |record| {
                    server
                        .open(black_box(record), &mut opened)
                        .expect("it is the next")
                },
                BatchSize::NumIterations(16),
            );
        });
    }
}

/// Carries all that `from` has to say to `to`, as far as that wants it.
fn carry(from: &mut impl Handshake, to: &mut impl Handshake) {
    let count = to.wanted().min(from.transmit().len());
    let heard = to.receive(&from.transmit()[..count]);
    heard.expect("the peer is right");
    from.transmitted(count);
}

fn snet_open() {
    let mut client = snet::ClientOpen::new(KeyAgreement::Private(private(1)));
    let mut server = snet::ServerHandshake::new();
    carry(&mut client, &mut server);
    let key = server.open(&KeyAgreement::Private(private(3)), 7, 11);
    carry(&mut server, &mut client);
    carry(&mut client, &mut server);
    assert!(key.is_some() && client.opened().is_some() && server.is_proved());
}

fn snet_resume(session: &Opened) {
    let counts = Counts {
        sent: 1 << 30,
        received: 1 << 30,
    };
    let mut client = snet::ClientResume::new(session, counts);
    let mut server = snet::ServerHandshake::new();
    while !client.transmit().is_empty() {
        carry(&mut client, &mut server);
    }
    let Some(snet::Hello::Resume(request)) = server.hello() else {
        panic!("{server:?} has no request");
    };
    assert!(request.verify(&session.key));
    server.resume(&session.key, counts, Challenge::MAX);
    carry(&mut server, &mut client);
    assert!(client.reply().is_some());
    client.confirm();
    carry(&mut client, &mut server);
    assert!(server.is_proved());
}

/// native's, with one end's keys and the other's.
#[derive(Clone)]
struct Protected(Option<(ClientKeys, ServerKeys)>);

impl Protected {
    fn by(pattern: Option<Pattern>) -> Self {
        Self(pattern.map(|pattern| (client_keys(pattern), server_keys(pattern))))
    }

    fn client(&self) -> ClientProtection {
        match &self.0 {
            None => ClientProtection::None,
            Some((keys, _)) => ClientProtection::Noise {
                keys: keys.clone(),
                suite: Suite::AesGcm,
                ephemeral: [1; 32].into(),
            },
        }
    }

    fn server(&self) -> ServerProtection {
        match &self.0 {
            None => ServerProtection::None,
            Some((_, keys)) => ServerProtection::Noise {
                keys: keys.clone(),
                ephemeral: [2; 32].into(),
            },
        }
    }
}

/// What a client of native's says last, under its records if there are any.
struct Last {
    confirm: [u8; native::CONFIRM_LEN],
    records: Option<Records>,
}

/// Brings a client's first message to a server.
fn native_first(client: &mut impl Handshake, protected: &Protected) -> native::ServerHandshake {
    let mut server = native::ServerHandshake::new();
    while !client.transmit().is_empty() {
        carry(client, &mut server);
        if server.prelude().is_some() {
            let proceeded = server.proceed(protected.server());
            proceeded.expect("both have the same security");
        }
    }
    server
}

/// Brings a server its client's last message.
fn native_last(server: &mut native::ServerHandshake, last: Last) {
    let records = server.take_records().zip(last.records);
    let heard = match records {
        None => server.receive(&last.confirm),
        Some((mut server_records, mut client_records)) => {
            let mut record = [0; native::CONFIRM_LEN + TAG_LEN];
            let mut opened = [0; native::CONFIRM_LEN + TAG_LEN];
            let len = client_records.seal(&last.confirm, &mut record);
            let len = len.and_then(|len| server_records.open(&record[..len], &mut opened));
            server.receive(&opened[..len.expect("nothing has changed the record")])
        }
    };
    heard.expect("the proof is right");
    assert!(server.proved().is_some());
}

fn native_open(protected: &Protected) {
    let mut client = native::ClientOpen::new(WINDOW as u64, protected.client());
    let mut server = native_first(&mut client, protected);
    server.open(&native::Opened {
        id: [7; 16],
        secret: SessionSecret::new(SECRET),
        route: 0,
        window: WINDOW as u64,
        resume_window: Duration::from_secs(300),
    });
    while !server.transmit().is_empty() {
        carry(&mut server, &mut client);
    }
    let last = Last {
        confirm: client.confirm().expect("the server has opened a session"),
        records: client.take_records(),
    };
    native_last(&mut server, last);
}

fn native_resume(protected: &Protected) {
    let secret = SessionSecret::new(SECRET);
    let protection = protected.client();
    let mut client =
        native::ClientResume::new([7; 16], &secret, 0, 1, [1; 16], 1 << 30, protection);
    let mut server = native_first(&mut client, protected);
    server.resume(&secret, [2; 16], 1 << 30);
    while !server.transmit().is_empty() {
        carry(&mut server, &mut client);
    }
    let last = Last {
        confirm: client.confirm(1 << 30).expect("the server goes on"),
        records: client.take_records(),
    };
    native_last(&mut server, last);
}

/// Both ends' work together, random numbers apart.
fn handshakes(criterion: &mut Criterion) {
    let mut group = group(criterion, "handshakes");
    // Some take so long that 100 samples of growing length would not fit.
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("snet open", |bencher| bencher.iter(snet_open));
    let session = Opened {
        id: 7,
        key: SessionKey::new(*b"8 bytes."),
    };
    group.bench_function("snet resume", |bencher| {
        bencher.iter(|| snet_resume(black_box(&session)));
    });
    for (name, pattern) in [
        ("none", None),
        ("NN", Some(Pattern::Nn)),
        ("NNpsk0", Some(Pattern::NnPsk0)),
        ("NK", Some(Pattern::Nk)),
        ("IK", Some(Pattern::Ik)),
    ] {
        let protected = Protected::by(pattern);
        group.bench_function(format!("native open, {name}"), |bencher| {
            bencher.iter(|| native_open(black_box(&protected)));
        });
        group.bench_function(format!("native resume, {name}"), |bencher| {
            bencher.iter(|| native_resume(black_box(&protected)));
        });
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    replay_buffer(&mut criterion);
    frames(&mut criterion);
    noise_records(&mut criterion);
    snet_keys(&mut criterion);
    snet_stream(&mut criterion);
    handshakes(&mut criterion);
    criterion.final_summary();
}
