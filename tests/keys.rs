//! Keys: as text, in files, and nowhere else.
#![cfg(feature = "noise")]

use std::{error::Error as _, fs, io, path::Path};

use proptest::prelude::*;
use unbroken::{KeyError, KeyKind, KeyPair, PresharedKey, PublicKey, protocol::noise};

const KINDS: [(KeyKind, &str); 3] = [
    (KeyKind::Public, "unbroken-public-"),
    (KeyKind::Private, "unbroken-private-"),
    (KeyKind::Preshared, "unbroken-psk-"),
];
/// By another implementation of base64url: the bytes 0, 1, … 31.
const COUNTING: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
/// The first is the identity, the fourth and the fifth have an order of 8.
const LOW_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    },
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
];

/// Reads a text as a key of this kind, and writes it again.
fn read(kind: KeyKind, text: &str) -> Result<String, KeyError> {
    match kind {
        KeyKind::Public => text.parse::<PublicKey>().map(|key| key.to_string()),
        KeyKind::Private => text
            .parse::<KeyPair>()
            .map(|keys| keys.to_text().to_string()),
        KeyKind::Preshared => text
            .parse::<PresharedKey>()
            .map(|key| key.to_text().to_string()),
        _ => unreachable!("there are three"),
    }
}

/// The text of a key of this kind, made from these bytes.
fn text(kind: KeyKind, bytes: [u8; 32]) -> String {
    match kind {
        KeyKind::Public => KeyPair::from_private_bytes(bytes).public().to_string(),
        KeyKind::Private => KeyPair::from_private_bytes(bytes).to_text().to_string(),
        KeyKind::Preshared => PresharedKey::from(bytes).to_text().to_string(),
        _ => unreachable!("there are three"),
    }
}

/// An error as people may get to see it, its causes included.
fn printed(error: &KeyError) -> String {
    let mut printed = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        printed += &format!(" {cause} {cause:?}");
        source = cause.source();
    }
    printed
}

/// That no 4 bytes in a row of the secret are printed: as base64, as hex, or as Rust prints bytes.
fn assert_unprinted(secret: &[u8; 32], printed: &str) {
    let text = PresharedKey::from(*secret).to_text();
    let encoded = &text["unbroken-psk-".len()..];
    for at in 0..=encoded.len() - 6 {
        assert!(!printed.contains(&encoded[at..at + 6]), "{printed}");
    }
    let lower = printed.to_lowercase();
    for window in secret.windows(4) {
        let hex: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!lower.contains(&hex), "{printed}");
        let [a, b, c, d] = window else { unreachable!() };
        assert!(
            !printed.contains(&format!("{a}, {b}, {c}, {d}")),
            "{printed}"
        );
    }
}

#[test]
fn texts_are_a_prefix_and_base64url() {
    let counting = std::array::from_fn(|at| at as u8);
    let preshared = PresharedKey::from(counting);
    assert_eq!(*preshared.to_text(), format!("unbroken-psk-{COUNTING}"));
    let keys = KeyPair::from_private_bytes(counting);
    assert_eq!(*keys.to_text(), format!("unbroken-private-{COUNTING}"));
    let public = PublicKey::from_bytes(counting).expect("a point");
    assert_eq!(public.to_string(), format!("unbroken-public-{COUNTING}"));
    assert_eq!(format!("{public:?}"), public.to_string());
    assert_eq!(*keys.public().as_bytes(), noise::public_key(&counting));
}

#[test]
fn generated_keys_differ() {
    let pairs = [KeyPair::generate(), KeyPair::generate()].map(|keys| keys.expect("random"));
    assert_ne!(pairs[0].public(), pairs[1].public());
    let keys = [PresharedKey::generate(), PresharedKey::generate()];
    let [one, other] = keys.map(|key| key.expect("random").to_text());
    assert_ne!(one, other);
}

#[test]
fn points_of_low_order_are_refused_as_public_keys() {
    for bytes in LOW_ORDER {
        let refused = PublicKey::from_bytes(bytes);
        assert!(matches!(refused, Err(KeyError::LowOrder)), "{bytes:02x?}");
        let text = PresharedKey::from(bytes).to_text();
        let text = text.replace("unbroken-psk-", "unbroken-public-");
        let refused = text.parse::<PublicKey>();
        assert!(matches!(refused, Err(KeyError::LowOrder)), "{bytes:02x?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again_with_white_space_around_it(
        bytes: [u8; 32],
        before in "[ \t\r\n]{0,4}",
        after in "[ \t\r\n]{0,4}",
    ) {
        for (kind, prefix) in KINDS {
            let text = text(kind, bytes);
            prop_assert!(text.starts_with(prefix));
            prop_assert_eq!(text.len(), prefix.len() + 43);
            prop_assert_eq!(read(kind, &format!("{before}{text}{after}")).expect("a key"), text);
        }
        let keys = KeyPair::from_private_bytes(bytes);
        let again: KeyPair = keys.to_text().parse().expect("its own text");
        prop_assert_eq!(again.public(), keys.public());
        let known = PublicKey::from_bytes(*keys.public().as_bytes()).expect("somebody has the key to it");
        prop_assert_eq!(known, keys.public());
    }

    #[test]
    fn a_key_of_one_kind_is_refused_as_another(bytes: [u8; 32]) {
        for (kind, _) in KINDS {
            let text = text(kind, bytes);
            for (other, prefix) in KINDS.into_iter().filter(|(other, _)| *other != kind) {
                let error = read(other, &text).expect_err("the wrong kind");
                let KeyError::WrongKind { found, needed } = error else { panic!("{error}") };
                prop_assert_eq!((found, needed), (kind, other));
                let said = error.to_string();
                prop_assert!(said.contains(&kind.to_string()) && said.contains(prefix), "{}", said);
                assert_unprinted(&bytes, &printed(&error));
            }
        }
    }

    /// No two texts are the same key, so that a typo is never overlooked: at best it makes another key.
    #[test]
    fn a_changed_text_is_refused_or_another_key(
        bytes: [u8; 32],
        at: prop::sample::Index,
        with in prop::sample::select(vec![
            " ", "\n", "=", "+", "/", "-", "_", "A", "Q", "f", "z", "0", "\u{0}", "ä", "\u{feff}",
        ]),
        how in 0..4,
    ) {
        for (kind, prefix) in KINDS {
            let text = text(kind, bytes);
            let at = at.index(text.len());
            let mut changed = text.clone();
            match how {
                0 => changed.replace_range(at..=at, with),
                1 => changed.insert_str(at, with),
                2 => { changed.remove(at); }
                _ => changed.truncate(at),
            }
            if changed.trim_ascii() == text {
                continue;
            }
            match read(kind, &changed) {
                Ok(key) => {
                    prop_assert!(at >= prefix.len() && how == 0, "{:?} was taken", changed);
                    prop_assert_eq!(key.len(), text.len());
                    prop_assert_ne!(key, text);
                }
                Err(error) => {
                    let expected = match error {
                        KeyError::NotAKey { needed } => at < prefix.len() && needed == kind,
                        KeyError::Length { found } => found == changed.trim_ascii().len() - prefix.len(),
                        KeyError::Encoding => changed.len() == text.len() || with.len() > 1,
                        KeyError::LowOrder => kind == KeyKind::Public,
                        _ => false,
                    };
                    prop_assert!(expected, "{:?}: {}", changed, error);
                    if kind != KeyKind::Public {
                        assert_unprinted(&bytes, &printed(&error));
                    }
                }
            }
        }
    }

    #[test]
    fn the_last_character_has_one_spelling_a_key(bytes: [u8; 32], last in "[A-Za-z0-9_-]") {
        let text = text(KeyKind::Preshared, bytes);
        let changed = format!("{}{last}", &text[..text.len() - 1]);
        match read(KeyKind::Preshared, &changed) {
            Ok(key) => prop_assert_eq!(key, changed),
            Err(error) => prop_assert!(matches!(error, KeyError::Encoding), "{}", error),
        }
    }

    #[test]
    fn nothing_makes_reading_panic(text: String, prefix in prop::sample::select(vec![
        "", "unbroken-public-", "unbroken-private-", "unbroken-psk-",
    ])) {
        for (kind, _) in KINDS {
            let _ = read(kind, &format!("{prefix}{text}"));
        }
    }

    #[test]
    fn secrets_are_printed_by_nothing_but_to_text(bytes: [u8; 32]) {
        // A private key of few different bytes may look like its public key, or like part of a word.
        prop_assume!(bytes.windows(4).all(|window| window.iter().any(|byte| *byte > 9)));
        let keys = KeyPair::from_private_bytes(bytes);
        assert_unprinted(&bytes, &format!("{keys:?} {keys:#?} {} {:?}", keys.public(), keys.public()));
        let public = keys.public().to_string();
        let debug = format!("{keys:?}");
        prop_assert!(debug.contains(&public), "{}", debug);
        let key = PresharedKey::from(bytes);
        prop_assert_eq!(format!("{key:?} {key:#?}"), "PresharedKey(..) PresharedKey(..)");
    }
}

#[test]
fn keys_are_kept_in_files_and_never_overwrite_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let keys = KeyPair::from_private_bytes([0x51; 32]);
    let path = directory.path().join("pair");
    keys.save(&path).expect("a new file");
    assert_eq!(
        fs::read_to_string(&path).expect("there"),
        format!("{}\n", *keys.to_text())
    );
    assert_eq!(KeyPair::load(&path).expect("it").public(), keys.public());

    let preshared = PresharedKey::from([0x52; 32]);
    let error = preshared.save(&path).expect_err("it is there already");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(KeyPair::load(&path).expect("it").public(), keys.public());
    let error = PresharedKey::load(&path).expect_err("a private key");
    let said = error.to_string();
    assert!(
        said.contains("a private key") && said.contains(&*path.to_string_lossy()),
        "{said}"
    );
    assert_unprinted(&[0x51; 32], &printed(&error));

    let path = directory.path().join("preshared");
    preshared.save(&path).expect("a new file");
    let again = PresharedKey::load(&path).expect("it");
    assert_eq!(again.to_text(), preshared.to_text());
    let error = KeyPair::load(&path).expect_err("a preshared key");
    assert!(error.to_string().contains("a preshared key"), "{error}");

    let error = KeyPair::load(directory.path().join("missing")).expect_err("it is not there");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    let error = keys.save(directory.path().join("missing/key"));
    let error = io::Error::from(error.expect_err("nowhere to put it"));
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.get_ref().is_some_and(|error| error.is::<KeyError>()));
}

/// A file of the owner's alone.
fn put(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("written");
    chmod(path, 0o600);
}

fn chmod(path: &Path, mode: u32) {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
        .expect("its owner");
    #[cfg(not(unix))]
    let _ = (path, mode);
}

#[test]
fn a_file_that_holds_anything_else_is_refused_however_long_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key");
    let text = KeyPair::from_private_bytes([0x51; 32]).to_text();

    put(&path, format!(" {}\r\n\n", *text).as_bytes());
    KeyPair::load(&path).expect("white space does not matter");

    let mut contents = vec![
        Vec::new(),
        b"\xff\xfe\x00".to_vec(),
        format!("{}\n{}\n", *text, *text).into_bytes(),
        format!("# mine\n{}\n", *text).into_bytes(),
    ];
    // Looking at the beginning alone would take these.
    for len in [100, 194, 195, 196, 255, 256, 257, 100_000] {
        contents.push(format!("{}{}x", *text, " ".repeat(len)).into_bytes());
    }
    for content in contents {
        put(&path, &content);
        let error = KeyPair::load(&path).expect_err("more than a key");
        assert!(
            matches!(error, KeyError::Content { .. } | KeyError::TooLong { .. }),
            "{error}"
        );
        assert_unprinted(&[0x51; 32], &printed(&error));
    }

    let file = fs::File::create(&path).expect("created");
    file.set_len(10 << 30).expect("a hole takes no room");
    chmod(&path, 0o600);
    let error = KeyPair::load(&path).expect_err("it is long");
    assert!(matches!(error, KeyError::TooLong { .. }), "{error}");
}

#[cfg(unix)]
mod unix {
    use std::{os::unix::fs::PermissionsExt, process::Command, sync::mpsc, time::Duration};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    /// The umask is the whole process's, so each is tried in one of its own.
    #[test]
    fn a_file_is_its_owners_alone_whatever_the_umask() {
        const TEST: &str = "unix::a_file_is_its_owners_alone_whatever_the_umask";
        const PATH: &str = "UNBROKEN_TEST_KEY_PATH";
        if let Some(path) = std::env::var_os(PATH) {
            KeyPair::from_private_bytes([0x51; 32])
                .save(path)
                .expect("a new file");
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        for umask in ["0000", "0022", "0077", "0277", "0777"] {
            let path = directory.path().join(umask);
            let status = Command::new("sh")
                .args(["-c", "umask \"$1\" && shift && exec \"$@\"", "sh", umask])
                .arg(std::env::current_exe().expect("this test"))
                .args(["--exact", TEST])
                .env(PATH, &path)
                .status()
                .expect("a shell");
            assert!(status.success(), "{umask}");
            assert_eq!(mode(&path), 0o600, "{umask}");
            KeyPair::load(&path).expect("the key");
        }
    }

    #[test]
    fn a_file_that_others_can_get_at_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        KeyPair::from_private_bytes([0x51; 32])
            .save(&path)
            .expect("new");
        for bit in 0..9 {
            chmod(&path, 0o600 | 1 << bit);
            let loaded = KeyPair::load(&path);
            if bit >= 6 {
                loaded.expect("the owner may do anything");
                continue;
            }
            let error = loaded.expect_err("others can get at it");
            assert!(matches!(error, KeyError::Permissions { .. }), "{error}");
            let said = error.to_string();
            for part in [
                &*path.to_string_lossy(),
                &format!("{:04o}", 0o600 | 1 << bit),
                "chmod 600",
            ] {
                assert!(said.contains(part), "{said}");
            }
            let error = io::Error::from(error);
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        chmod(&path, 0o400);
        KeyPair::load(&path).expect("its owner can read it");
    }

    #[test]
    fn a_link_stands_for_the_file_behind_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        let keys = KeyPair::from_private_bytes([0x51; 32]);
        let error = io::Error::from(keys.save(&link).expect_err("the link is there"));
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(!path.exists());

        keys.save(&path).expect("a new file");
        assert_eq!(KeyPair::load(&link).expect("it").public(), keys.public());
        chmod(&path, 0o644);
        let error = KeyPair::load(&link).expect_err("others can read it");
        assert!(matches!(error, KeyError::Permissions { .. }), "{error}");
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let fifo = directory.path().join("fifo");
        let made = Command::new("mkfifo")
            .args(["-m", "600"])
            .arg(&fifo)
            .status();
        assert!(made.expect("mkfifo").success());
        // Nobody writes to the pipe: who opens it waits for ever.
        let (sender, receiver) = mpsc::channel();
        let places = ["/dev/zero".into(), directory.path().to_owned(), fifo];
        std::thread::spawn(move || {
            for place in places {
                let refused = [
                    KeyPair::load(&place).expect_err("no file"),
                    PresharedKey::load(&place).expect_err("no file"),
                ];
                sender.send(refused).expect("awaited");
            }
        });
        for _ in 0..3 {
            for error in receiver
                .recv_timeout(Duration::from_secs(20))
                .expect("at once")
            {
                assert!(matches!(error, KeyError::NotRegular { .. }), "{error}");
            }
        }
    }
}
