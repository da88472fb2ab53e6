//! Keys, secrets, nonces, challenges, proofs and payload: none of them is ever traced, nor any key or secret in what a type shows of
//! itself.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, time::sleep};
use tower::{ServiceExt, service_fn};
use unbroken::{
    Accepted, Acceptor, Config, Connector, Handle, Listener, ResumableLayer, Security, Snet,
    Target, TcpConnector,
    protocol::{
        Handshake, Phase, Role, Session,
        native::{
            self, ClientProtection, Identity, NativeSession, ServerProtection, SessionSecret,
        },
        snet::{self, CipherChoice, KeyAgreement, PrivateKey, StreamCipher},
    },
};

use super::{
    capture::Capture,
    memory_link::{Client, Server, Side, Wire, link},
    memory_net::{Dial, Net, ROOMY, closed, expect, native, resumed, send},
    raw_peer::drive,
};

/// Of letters that no word has beside each other.
const PAYLOAD: &[u8] = b"Zq7#Wv9!Kx3?Jy5&Qp8*Gz2^Hk6@Vb4%Xm1~Fd0";

/// Of a secret, so many bytes in a row are too many.
const PIECE: usize = 4;
/// How many characters of a secret's text.
const LETTERS: usize = 8;

/// What must not be told.
#[derive(Default)]
struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    fn add(&mut self, secret: &[u8]) {
        assert!(secret.len() >= PIECE);
        assert!(secret.iter().any(|byte| *byte != 0));
        self.0.push(secret.to_vec());
    }

    /// Sees that no piece of any is in `text`, in whatever form a program prints bytes or numbers.
    fn check(&self, text: &str) {
        // As `{:?}` and `{:#?}` print it, and as often as it was quoted.
        let text: String = text
            .replace('\\', "")
            .split_whitespace()
            .collect::<String>()
            .to_lowercase();
        assert!(!text.is_empty());
        for secret in &self.0 {
            for form in forms(secret) {
                assert!(!text.contains(&form), "{form} of {secret:02x?} is told");
            }
        }
    }
}

fn forms(secret: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for piece in secret.windows(PIECE) {
        let list = |form: &dyn Fn(&u8) -> String| piece.iter().map(form).collect::<Vec<_>>();
        let hex = list(&|byte| format!("{byte:02x}"));
        forms.push(hex.concat());
        forms.push(hex.join(","));
        forms.push(hex.join(":"));
        forms.push(list(&|byte| format!("{byte:x}")).join(","));
        forms.push(list(&|byte| format!("0x{byte:02x}")).join(","));
        forms.push(list(&|byte| format!("{byte}")).join(","));
    }
    // As text: more of it, as four letters of a key are part of some word now and then.
    for piece in secret.windows(PIECE).chain(secret.windows(LETTERS)) {
        let escaped = piece.escape_ascii().to_string().replace('\\', "");
        let escaped = escaped
            .split_whitespace()
            .collect::<String>()
            .to_lowercase();
        // Of fewer characters something else may consist by chance.
        forms.extend((escaped.len() >= LETTERS).then_some(escaped));
    }
    if let Ok(number) = <[u8; 8]>::try_from(secret) {
        forms.push(u64::from_le_bytes(number).to_string());
        forms.push(u64::from_be_bytes(number).to_string());
        forms.push(format!("{:x}", u64::from_le_bytes(number)));
        forms.push(format!("{:x}", u64::from_be_bytes(number)));
    }
    forms
}

#[test]
fn every_form_is_found() {
    let secret = [0xde, 0xad, 0x0e, 0xef, 0x41, 0x42, 0x43, 0x5c];
    let mut secrets = Secrets::default();
    secrets.add(&secret);
    let middle = &secret[1..7];
    for told in [
        format!("{secret:?}"),
        format!("{middle:#?}"),
        format!("{middle:02x?}"),
        format!("{middle:x?}"),
        format!("{middle:#04x?}"),
        format!("{:?}", format!("{:?}", middle.escape_ascii().to_string())),
        String::from_utf8_lossy(&[0x61; 4]).into_owned() + "DEAD0EEF",
        u64::from_le_bytes(secret).to_string(),
        u64::from_be_bytes(secret).to_string(),
        format!("{:#x}", u64::from_be_bytes(secret)),
    ] {
        let found = std::panic::catch_unwind(|| secrets.check(&told));
        assert!(found.is_err(), "{told}");
    }
    secrets.check("[1, 2, 3, 4], dead0e, \"ABC\"");
}

/// The secrets that went over a link in native's handshakes; they went in the clear.
fn native_secrets(wire: &Wire, secrets: &mut Secrets) {
    let [client, server] = [Client, Server].map(|side: Side| wire.written(side));
    let is_resume = client[5] == 1;
    if is_resume {
        // Behind the prelude and RESUME's header, id and attempt.
        secrets.add(&client[40..56]);
        // CONFIRM's proof.
        secrets.add(&client[76..108]);
        // RESUMED's nonce and proof.
        secrets.add(&server[4..20]);
        secrets.add(&server[28..60]);
    } else {
        secrets.add(&client[40..72]);
        // OPENED's secret, behind its header and id.
        secrets.add(&server[20..52]);
    }
}

/// The same of snet's, in which the key itself is not on the wire.
fn snet_secrets(wire: &Wire, secrets: &mut Secrets) {
    let [client, server] = [Client, Server].map(|side: Side| wire.written(side));
    secrets.add(&server[16..24]);
    if client[0] == 0 {
        secrets.add(&client[9..25]);
    } else {
        // The proof in the request, and the one after it.
        secrets.add(&client[25..41]);
        secrets.add(&client[41..57]);
    }
}

struct Mask(u8);

impl StreamCipher for Mask {
    fn apply(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte ^= self.0);
    }
}

/// Every key that a session was given goes into `keys`.
fn spying(keys: &Arc<Mutex<Vec<[u8; 8]>>>) -> Config {
    let keys = keys.clone();
    Config::new().snet(
        Snet::cipher(move |key: &[u8; 8], _| {
            keys.lock().expect("no panic").push(*key);
            Mask(key[0])
        })
        .silence(None),
    )
}

#[tokio::test(start_paused = true)]
async fn no_secret_and_no_payload_is_ever_traced() {
    let keys = Arc::default();
    let find: [fn(&Wire, &mut Secrets); 2] = [native_secrets, snet_secrets];
    for (config, find) in [native(), spying(&keys)].into_iter().zip(find) {
        let mut secrets = Secrets::default();
        tells_nothing(&config, &config, find, &keys, &mut secrets).await;
        assert!(secrets.0.len() > 10);
    }
    assert!(!keys.lock().expect("no panic").is_empty());
}

#[cfg(feature = "noise")]
#[tokio::test(start_paused = true)]
async fn no_key_of_either_end_is_ever_traced() {
    use unbroken::{KeyPair, PresharedKey};

    // Behind what says which kind of key it is.
    let text = |text: &str| text.as_bytes()[text.len() - 43..].to_vec();
    let shared = PresharedKey::generate().expect("random bytes");
    let psk = || Config::new().security(Security::psk(shared.clone()));
    let [server, client] = [0x5eed_u64, 0xc11e].map(|seed| {
        let private =
            std::array::from_fn(|at| (seed.wrapping_mul(at as u64 * 7919 + 31) >> 3) as u8);
        (private, KeyPair::from_private_bytes(private))
    });
    let mutual = (
        Config::new().security(Security::key_pair(server.1.clone()).authorize(|_| true)),
        Config::new().security(Security::mutual(client.1.clone(), server.1.public())),
    );
    for (for_server, for_client) in [(psk(), psk()), mutual] {
        let mut secrets = Secrets::default();
        secrets.add(&text(&shared.to_text()));
        for (private, pair) in [&server, &client] {
            secrets.add(&private[..]);
            secrets.add(&text(&pair.to_text()));
        }
        tells_nothing(
            &for_server,
            &for_client,
            |_, _| {},
            &Arc::default(),
            &mut secrets,
        )
        .await;
    }
}

/// Has a session live through what there is, and sees that none of the `secrets`, nor those that are found in what went over its links, is told.
async fn tells_nothing(
    server: &Config,
    client: &Config,
    find: fn(&Wire, &mut Secrets),
    keys: &Arc<Mutex<Vec<[u8; 8]>>>,
    secrets: &mut Secrets,
) {
    let (capture, _guard) = Capture::here();
    let mut told = Vec::new();
    secrets.add(PAYLOAD);

    let mut net = Net::new(server, ROOMY);
    let (mut client, mut server) = net.open(client).await;
    for _ in 0..3 {
        send(&mut client, PAYLOAD).await;
        expect(&mut server, PAYLOAD).await;
        net.lose(&client, &server).await;
        // Under way twice.
        client.write_all(PAYLOAD).await.expect("there is room");
        server.write_all(PAYLOAD).await.expect("there is room");
        sleep(Duration::from_secs(1)).await;
        let resumes = client.handle().stats().resumes;
        net.set(Dial::Serve);
        resumed(&client.handle(), resumes + 1).await;
        expect(&mut server, PAYLOAD).await;
        expect(&mut client, PAYLOAD).await;
        client.handle().migrate().await.expect("it migrates");
    }
    told.push(format!("{:#?}", [client.handle(), server.handle()]));
    let sessions = net.acceptor().sessions().expect("a good configuration");
    told.push(format!("{sessions:?} {:?}", sessions.list()));
    let good = net.links();

    // What goes wrong is told as well: a resume with bytes changed, one in the wrong place, strangers.
    let request = net.wire(good - 1).written(Client);
    let mut forged = request.clone();
    forged[30] ^= 1;
    for bytes in [&request[..], &forged, &request[..20], PAYLOAD, b"UNBR\x09"] {
        let (mut stranger, _) = net.raw_link();
        stranger.write_all(bytes).await.expect("there is room");
        sleep(Duration::from_secs(1)).await;
        drop(stranger);
    }
    sleep(Duration::from_secs(11)).await;
    client.handle().close(0xdead);
    server.handle().close(0xdead);
    for end in [&client, &server] {
        told.push(format!("{:?}", closed(&end.handle()).await));
    }
    for result in [client.write_all(PAYLOAD).await, server.flush().await] {
        let error = result.expect_err("the session is over");
        told.push(format!("{error} {error:?} {error:#?}"));
    }

    for number in 0..good {
        find(&net.wire(number), secrets);
    }
    for key in keys.lock().expect("no panic").iter() {
        secrets.add(key);
    }
    let events = capture.ours();
    assert!(events.len() > 50, "{}", events.len());
    secrets.check(&capture.text());
    secrets.check(&told.concat());
}

/// What a value shows of itself.
#[derive(Default)]
struct Shown(String);

impl Shown {
    fn add(&mut self, value: &dyn fmt::Debug) {
        self.0 += &format!("{value:?}\n{value:#?}\n");
    }
}

#[tokio::test]
async fn no_key_shows_in_what_the_surface_shows_of_itself() {
    let keys = Arc::default();
    for config in [native(), spying(&keys)] {
        let (mut shown, mut secrets) = (Shown::default(), Secrets::default());
        secrets.add(PAYLOAD);
        let mut listener = Listener::bind("127.0.0.1:0", config.clone())
            .await
            .expect("a port");
        let addr = listener.local_addr().expect("it has one");
        let connector = Connector::new(TcpConnector::new(), config.clone());
        let opening = connector.clone().oneshot(Target::from(addr));
        shown.add(&connector);
        shown.add(&tower::Service::call(
            &mut connector.clone(),
            Target::from(addr),
        ));
        let mut client = opening.await.expect("the session opens");
        let (server, peer) = listener.accept().await.expect("a session");
        send(&mut client, PAYLOAD).await;
        let handles: [Handle; 2] = [client.handle(), server.handle()];
        shown.add(&(&client, &server, peer, &handles, handles[0].id()));
        shown.add(&handles[0].stats());
        shown.add(&(&listener, listener.sessions(), listener.sessions().list()));
        shown.add(&(Security::none(), Snet::rc4(), &config, Target::from(addr)));
        shown.add(&(TcpConnector::new(), ResumableLayer::new(config.clone())));

        let acceptor = Acceptor::new(config.clone());
        shown.add(&acceptor);
        let (near, far, wire) = link(ROOMY);
        let near = Arc::new(Mutex::new(Some(near)));
        let dial = service_fn(move |()| {
            let near = near.lock().expect("no panic").take();
            async move { near.ok_or("the only link is gone") }
        });
        let connector = Connector::new(dial, config.clone());
        let (client, accepted) = tokio::join!(connector.oneshot(()), acceptor.accept(far));
        let accepted = accepted.expect("a session");
        shown.add(&accepted);
        if let (Accepted::New(transport), Ok(client)) = (accepted, client) {
            shown.add(&Accepted::Resumed(transport.handle().id()));
            drop((transport, client));
        }
        match wire.written(Client)[0] {
            0 => snet_secrets(&wire, &mut secrets),
            _ => native_secrets(&wire, &mut secrets),
        }
        for key in keys.lock().expect("no panic").iter() {
            secrets.add(key);
        }
        secrets.check(&shown.0);
    }
}

#[tokio::test]
async fn no_key_shows_in_what_the_native_core_shows_of_itself() {
    let (mut shown, mut secrets) = (Shown::default(), Secrets::default());
    let bytes: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0x81);
    secrets.add(&bytes);
    let secret = SessionSecret::new(bytes);
    let opened = native::Opened {
        id: [0x11; 16],
        secret: secret.clone(),
        route: 0,
        window: 1024,
        resume_window: Duration::from_secs(60),
    };
    shown.add(&(&secret, &opened));

    let (mut near, mut far, _) = link(ROOMY);
    let mut client = native::ClientOpen::new(1024, ClientProtection::None);
    let mut server = native::ServerHandshake::new();
    let serve = async {
        let mut stages = Shown::default();
        drive(&mut far, &mut server).await.expect("the prelude");
        stages.add(&server);
        let going_on = server.proceed(ServerProtection::None);
        going_on.expect("what the client asks for");
        drive(&mut far, &mut server).await.expect("the first half");
        stages.add(&server);
        server.open(&opened);
        stages.add(&server);
        far.write_all(server.transmit())
            .await
            .expect("there is room");
        server.transmitted(server.transmit().len());
        stages.add(&server);
        stages
    };
    let (served, driven) = tokio::join!(serve, drive(&mut near, &mut client));
    driven.expect("the handshake");
    assert!(client.opened().is_some());
    shown.add(&client);
    shown.0 += &served.0;

    let mut client = native::ClientResume::new(
        [0x11; 16],
        &secret,
        0,
        1,
        [0x22; 16],
        0,
        ClientProtection::None,
    );
    let mut server = native::ServerHandshake::new();
    server
        .receive(client.transmit())
        .expect_err("more than is wanted at first");
    let mut server = native::ServerHandshake::new();
    for byte in client.transmit() {
        server.receive(&[*byte]).expect("a good request");
        let going_on = server.proceed(ServerProtection::None);
        going_on.expect("what the client asks for");
    }
    client.transmitted(client.transmit().len());
    server.resume(&secret, [0x33; 16], 0);
    shown.add(&(&client, &server));
    client.receive(server.transmit()).expect("a good answer");
    shown.add(&(&client, client.answer()));

    let identity = Identity {
        id: [0x11; 16],
        secret,
        binding: ClientProtection::None.binding(),
        route: 0,
        peer_window: 1024,
    };
    shown.add(&identity);
    let settings = native::Settings {
        window: 1024,
        max_window: 1024,
        resume_window: Duration::from_secs(60),
        linger: Duration::from_secs(60),
        ping_after: Duration::from_secs(15),
        dead_after: Duration::from_secs(30),
        handshake_timeout: Duration::from_secs(10),
        max_frame: native::MAX_DATA,
    };
    shown.add(&settings);
    let mut session = NativeSession::new(Role::Server, identity, settings, Instant::now());
    session.close(unbroken::CloseReason::Expired);
    assert!(matches!(session.phase(), Phase::Closed(_)));
    shown.add(&session.tombstone().expect("it is over"));
    secrets.check(&shown.0);
}

#[test]
fn no_key_shows_in_what_the_snet_core_shows_of_itself() {
    let (mut shown, mut secrets) = (Shown::default(), Secrets::default());
    let private = [0x8421_dead_beef_1357_u64, 0x1248_cafe_babe_7531];
    let agreement =
        |at: usize| KeyAgreement::Private(PrivateKey::new(private[at]).expect("it is not 0"));
    for key in private {
        secrets.add(&key.to_le_bytes());
        secrets.add(&key.to_be_bytes());
    }
    let mut client = snet::ClientOpen::new(agreement(0));
    let mut server = snet::ServerHandshake::new();
    server.receive(client.transmit()).expect("a good request");
    client.transmitted(client.transmit().len());
    shown.add(&(&client, &server, agreement(0)));
    let key = server
        .open(&agreement(1), 7, 9)
        .expect("it wants a session");
    shown.add(&(&server, &key));
    client.receive(server.transmit()).expect("a good answer");
    server.transmitted(server.transmit().len());
    let opened = client.opened().expect("the session is named").clone();
    shown.add(&(&client, &server, &opened));
    secrets.add(&agreed(private));
    let KeyAgreement::Private(own) = agreement(1) else {
        unreachable!("it was made so");
    };
    shown.add(&KeyAgreement::Known(own.public(), key.clone()));
    shown.add(&own);

    let counts = snet::Counts {
        sent: 1,
        received: 2,
    };
    let mut client = snet::ClientResume::new(&opened, counts);
    let mut server = snet::ServerHandshake::new();
    for byte in client.transmit() {
        server.receive(&[*byte]).expect("a good request");
    }
    client.transmitted(client.transmit().len());
    server.resume(&key, counts, snet::Challenge::MIN);
    shown.add(&(&client, &server));
    client.receive(server.transmit()).expect("a good answer");
    client.confirm();
    shown.add(&(&client, client.reply(), counts));
    shown.add(&snet::Settings {
        history: 1024,
        resume_window: Duration::from_secs(60),
        linger: Duration::from_secs(60),
        silence: None,
        fin_is_close: false,
        cipher: CipherChoice::Rc4,
    });
    secrets.check(&shown.0);
}

/// The Diffie-Hellman secret of both private keys, by repeated squaring: 5 to the power of their product, modulo p.
fn agreed(private: [u64; 2]) -> [u8; 8] {
    const P: u128 = 0xffff_ffff_ffff_ffc5;
    let power = |base: u64, mut exponent: u64| {
        let (mut base, mut result) = (u128::from(base), 1);
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result * base % P;
            }
            base = base * base % P;
            exponent >>= 1;
        }
        result as u64
    };
    power(power(5, private[0]), private[1]).to_le_bytes()
}
