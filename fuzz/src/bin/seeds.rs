//! Writes `seeds/`: what the targets start from. It comes out the same every time.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use unbroken::protocol::noise::Pattern;

const PROTOCOL: &str = include_str!("../../../docs/PROTOCOL.md");
const SNET: &str = include_str!("../../../tests/vectors/snet.json");

/// Pieces as they come, and of 1, 7, all and 3 bytes: what `Pieces::draw` makes of it.
const PIECES: [(&str, [u8; 4]); 2] = [("whole", [0; 4]), ("pieces", [1, 7, 0, 3])];

fn main() -> io::Result<()> {
    let seeds = Seeds(Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds"));
    match fs::remove_dir_all(&seeds.0) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let native = examples();
    snet_handshake(&seeds)?;
    native_handshake(&seeds, &native)?;
    frames(&seeds, &native)?;
    noise_records(&seeds)?;
    noise_link(&seeds)?;
    sessions(&seeds)?;
    session_input(&seeds)?;
    replay_buffer(&seeds)
}

struct Seeds(PathBuf);

impl Seeds {
    fn write(&self, target: &str, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let folder = self.0.join(target);
        fs::create_dir_all(&folder)?;
        fs::File::create(folder.join(name))?.write_all(&parts.concat())
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// What each side sends on each link of native's examples in the document, by "link-side".
fn examples() -> BTreeMap<String, Vec<u8>> {
    let (_, chapter) = PROTOCOL.split_once("\n# native\n").expect("its chapter");
    let mut examples: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut lines = chapter.lines();
    while let Some(line) = lines.next() {
        let Some(place) = line.strip_prefix("```hex ") else {
            continue;
        };
        let words: Vec<&str> = place.split_whitespace().collect();
        let wire = examples.entry(words[..2].join("-")).or_default();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            let digits = line.split(';').next().unwrap_or_default();
            wire.extend(unhex(&digits.split_whitespace().collect::<String>()));
        }
    }
    examples
}

fn snet_handshake(seeds: &Seeds) -> io::Result<()> {
    let target = "snet_handshake";
    let vectors: serde_json::Value = serde_json::from_str(SNET).expect("the vectors are JSON");
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    for session in list(&vectors["sessions"]) {
        let name = session["name"].as_str().expect("a name");
        for (number, connection) in list(&session["connections"]).iter().enumerate() {
            let hex = |side: &str| unhex(connection[side].as_str().expect("hex"));
            let client = hex("client_to_server_hex");
            let server = hex("server_to_client_hex");
            // As far as the handshake goes, and a few bytes behind it.
            let client = &client[..client.len().min(41 + 16 + 8)];
            let server = &server[..server.len().min(24 + 8)];
            for (how, pieces) in PIECES {
                let name = format!("{name}-{number}-{how}");
                let resumes = client[0] == 0xff;
                let choice = if resumes { 2 } else { 1 };
                let parts: [&[u8]; 3] = [&[0, choice], &pieces, client];
                seeds.write(target, &format!("server-{name}"), &parts)?;
                if resumes {
                    let parts: [&[u8]; 3] = [&[3, 100, 50], &pieces, server];
                    seeds.write(target, &format!("resume-{name}"), &parts)?;
                } else {
                    let parts: [&[u8]; 3] = [&[2], &pieces, server];
                    seeds.write(target, &format!("open-{name}"), &parts)?;
                }
            }
        }
    }
    let refused: [&[u8]; 3] = [&[3, 1, 2], &PIECES[0].1, &[0; 24]];
    seeds.write(target, "resume-refused", &refused)?;
    for resumes in 0..2 {
        for edit in 0..3 {
            let name = format!("between-{resumes}-{edit}");
            let parts: [&[u8]; 3] = [&[4, resumes, 1, edit, 3, 1], &PIECES[1].1, &[5, 6, 1]];
            seeds.write(target, &name, &parts)?;
        }
        let parts: [&[u8]; 3] = [&[4, resumes, 0], &PIECES[1].1, &[5, 6, resumes]];
        seeds.write(target, &format!("between-{resumes}"), &parts)?;
    }
    let misused = [
        5, 0, 0, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 128, 64, 200, 131, 130,
    ];
    seeds.write(target, "misused", &[&misused])
}

fn native_handshake(seeds: &Seeds, examples: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let target = "native_handshake";
    for (name, wire) in examples {
        // As far as the handshake goes, and a few bytes behind it.
        let wire = &wire[..wire.len().min(120)];
        for (how, pieces) in PIECES {
            let choice = u8::from(!name.starts_with("open"));
            let head: &[u8] = match (name.ends_with("client"), choice) {
                (true, _) => &[0, choice, 0],
                (false, 0) => &[2, 200, 0],
                (false, _) => &[3, 7, 0],
            };
            seeds.write(target, &format!("{name}-{how}"), &[head, &pieces, wire])?;
        }
    }
    // In the clear, where a security was asked for.
    let rejected = &examples["not-offered-server"];
    seeds.write(
        target,
        "open-nk-rejected",
        &[&[2, 200, 3], &PIECES[1].1, rejected],
    )?;
    seeds.write(
        target,
        "resume-nn-rejected",
        &[&[3, 7, 1], &PIECES[1].1, rejected],
    )?;
    for security in 1..=2 * Pattern::ALL.len() as u8 + 1 {
        // With a key that is nobody's, and a frame that is in the clear with NN.
        for (kind, frame) in [
            ("open", &examples["open-client"][16..28]),
            ("resume", &examples["resume-client"][16..64]),
        ] {
            let Some(pattern) = usize::from(security % 5).checked_sub(1) else {
                continue;
            };
            let suite = 1 + security / 5 % 2;
            let resumes = u8::from(kind == "resume");
            let prelude = [b"UNBR\x01", &[resumes, security % 5, suite][..], &[0; 8]].concat();
            let len = Pattern::ALL[pattern].first_len(frame.len());
            let mut message = vec![0; len];
            message[..32].fill(9);
            message[len - frame.len()..].copy_from_slice(frame);
            let head = [0, resumes, security];
            let parts: [&[u8]; 5] = [&head, &PIECES[1].1, &prelude, &[0, len as u8], &message];
            seeds.write(target, &format!("{kind}-{security}"), &parts)?;
        }
        for resumes in 0..2 {
            for edit in 0..3 {
                let name = format!("between-{resumes}-{security}-{edit}");
                let head = [4, resumes, security, 1, 1, edit, 9, 1];
                seeds.write(target, &name, &[&head, &PIECES[1].1, &[5, 6]])?;
            }
            let name = format!("between-{resumes}-{security}");
            let head = [4, resumes, security, 1, 0];
            seeds.write(target, &name, &[&head, &PIECES[1].1, &[5, 6]])?;
        }
    }
    for resumes in 0..2 {
        let head = [4, resumes, 0, 1, 0];
        let name = format!("between-{resumes}-0");
        seeds.write(target, &name, &[&head, &PIECES[1].1, &[5, 6]])?;
        // A server that offers something else.
        let head = [4, resumes, 3, 0, 4, 0];
        let name = format!("between-{resumes}-other");
        seeds.write(target, &name, &[&head, &PIECES[1].1, &[5, 6]])?;
    }
    let open = &examples["open-client"];
    let misused: [&[u8]; 5] = [
        &[5, 0, 0, 0, 28],
        &open[..28],
        &[128, 132, 64, 200, 0, 44],
        &open[28..72],
        &[135, 64, 255, 134],
    ];
    seeds.write(target, "misused", &misused)
}

fn frames(seeds: &Seeds, examples: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let behind = [
        ("open-client", 72),
        ("open-server", 68),
        ("resume-client", 108),
        ("resume-server", 60),
        ("ended-server", 60),
        ("unknown-server", 0),
    ];
    for (name, handshake) in behind {
        for (how, pieces) in PIECES {
            let frames = &examples[name][handshake..];
            seeds.write(
                "frames",
                &format!("{name}-{how}"),
                &[&pieces, &[100], frames],
            )?;
        }
    }
    let skipped = [
        0x80, 0, 0, 3, 1, 2, 3, 0x02, 0, 0, 0, 0xff, 0, 0, 0, 0x07, 0, 0, 0,
    ];
    seeds.write(
        "frames",
        "too-long-to-skip",
        &[&PIECES[1].1, &[2], &skipped],
    )?;
    seeds.write("frames", "skipped", &[&PIECES[1].1, &[3], &skipped])?;
    let longest = [&[0, 1, 0, 0][..], &[7; 300]].concat();
    seeds.write("frames", "longest-data", &[&PIECES[1].1, &[0], &longest])?;
    seeds.write(
        "frames",
        "too-long-data",
        &[&PIECES[0].1, &[255], &[0, 1, 0, 1]],
    )
}

fn noise_records(seeds: &Seeds) -> io::Result<()> {
    let target = "noise_records";
    // Seals and opens in order, both ways; one before its time; one twice; one changed, cut, and of the other direction.
    let records = [
        0, 5, 128, 9, 0, 200, 2, 130, 2, 0, 8, 0, 8, 4, 3, 2, 0, 8, 5, 1, 4, 1, 6, 0, 7, 3, 1, 2, 3,
    ];
    for pattern in 0..Pattern::ALL.len() as u8 {
        for suite in 0..2 {
            let name = |what: &str| format!("{what}-{pattern}-{suite}");
            let head = |mode| [pattern, suite, mode];
            let message = [7; 100];
            seeds.write(target, &name("first"), &[&head(0), &message])?;
            seeds.write(target, &name("second"), &[&head(1), &message])?;
            seeds.write(target, &name("between"), &[&head(2), &[20, 0, 0]])?;
            seeds.write(target, &name("changed"), &[&head(2), &[20, 0, 1, 40, 1]])?;
            seeds.write(target, &name("records"), &[&head(3), &records])?;
        }
    }
    Ok(())
}

fn noise_link(seeds: &Seeds) -> io::Result<()> {
    let target = "noise_link";
    // Small and large writes, one in three slices, flushes, and memory given back.
    let steps = [7, 0, 20, 5, 0, 0, 200, 3 | 5 << 3, 90, 6, 0, 7, 0, 0, 240];
    for pattern in 0..Pattern::ALL.len() as u8 {
        let how = pattern << 2 | pattern << 4 & 0x10 | pattern & 2;
        let sizes = &PIECES[usize::from(pattern % 2)].1;
        let early = [0x15, 0x40];
        for meddled in 0..8 {
            let name = format!("written-{pattern}-{meddled}");
            let ending = [u8::from(meddled == 1)];
            let done = [meddled, 1, 3, 1];
            let parts: [&[u8]; 8] = [
                &[how | 1],
                &[0; 4],
                sizes,
                sizes,
                &early,
                &ending,
                &steps,
                &done,
            ];
            seeds.write(target, &name, &parts)?;
        }
        let said = [&[0, 0x10][..], &[7; 16], &[0, 0x20], &[9; 32]].concat();
        let parts: [&[u8]; 5] = [&[how], sizes, sizes, &early[..1], &said];
        seeds.write(target, &format!("said-{pattern}"), &parts)?;
    }
    Ok(())
}

/// Steps of `sessions`, each with an end and a link in its first byte's upper half.
const DIAL: u8 = 8;
const SETTLE: u8 = 9;
const CLIENT: u8 = 0;
const SERVER: u8 = 0x10;
const EVERYTHING: u8 = 255;

fn sessions(seeds: &Seeds) -> io::Result<()> {
    let talk = [CLIENT, 40, SERVER, 30, SETTLE, 2, 100, 2 | SERVER, 100];
    let lost = [CLIENT, 60, 3, EVERYTHING, 7, 1, DIAL, SETTLE];
    let race = [10, 50, 20, SETTLE];
    let moved = [
        11 | SERVER,
        0,
        SERVER,
        99,
        SETTLE,
        11 | SERVER,
        0x81,
        SETTLE,
    ];
    let copied = [12, 72, 0, 12, EVERYTHING, 4, 1, 2, 3, 4, SETTLE];
    let late = [13, 255, 13, 200, DIAL, SETTLE];
    let shut = [14, SETTLE, SERVER, 12, SETTLE, 14 | SERVER, SETTLE];
    let steps = [
        &[DIAL, SETTLE][..],
        &talk,
        &lost,
        &race,
        &moved,
        &copied,
        &late,
        &talk,
        &shut,
    ]
    .concat();
    for mode in 0..6 {
        let head: Vec<Vec<u8>> = match mode {
            // The protection, windows, the capacity of a link, and how it goes on.
            0 | 1 => (0..8)
                .map(|rest| vec![mode, rest, 64, 192, 100, rest])
                .collect(),
            // Instead of the latter, whether all links fail, and how either end ends.
            2 => (0..5)
                .map(|ending| vec![mode, ending, 64, 80, 192, ending & 1, ending, 2])
                .collect(),
            // The cipher, the history, and the capacity.
            _ => (0..3).map(|cipher| vec![mode, cipher, 64, 63]).collect(),
        };
        for (number, head) in head.iter().enumerate() {
            seeds.write("sessions", &format!("{mode}-{number}"), &[head, &steps])?;
        }
    }
    Ok(())
}

fn session_input(seeds: &Seeds) -> io::Result<()> {
    // Each frame with its numbers: ATTACH, ACK, DATA, FIN, PING, RESET; between them what the application and the links do.
    let right = [
        0, 3, 0, 8, 255, 0, 4, 20, 0, 6, 30, 8, 255, 0, 0, 20, 120, 0, 7, 10, 0, 9, 0, 5, 0, 12,
        20, 8, 255,
    ];
    let resumed = [
        11, 10, 0, 8, 255, 0, 2, 0, 0, 200, 0, 0, 4, 10, 0, 7, 0, 14, 8, 255, 0, 7, 0,
    ];
    let ended = [0x0f, 3, 8, 255, 0, 8, 3, 0, 0x1f, 12, 255, 13];
    let wrong = [
        0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0x60, 7, 4, 200, 10, 1, 9, 11, 3,
    ];
    for how in 0..4 {
        for window in [1, 64, 210] {
            let head = [how, window, 64];
            let parts: [&[u8]; 5] = [&head, &right, &resumed, &right, &ended];
            seeds.write("session_input", &format!("right-{how}-{window}"), &parts)?;
            let parts: [&[u8]; 4] = [&head, &right, &resumed, &wrong];
            seeds.write("session_input", &format!("wrong-{how}-{window}"), &parts)?;
        }
    }
    Ok(())
}

fn replay_buffer(seeds: &Seeds) -> io::Result<()> {
    // Pushes, trims, looks from the start and from the end, masks, and gives back what is empty.
    let steps = [
        0, 100, 3, 0, 10, 2, 0, 60, 0, 90, 4, 1, 5, 7, 3, 0, 0, 0, 255, 2, 1, 0, 3, 2, 1, 2, 3, 1,
        5, 0, 20, 3, 0, 5, 2, 2, 9, 5,
    ];
    // 0, about 2^32, and the end of 64 bits.
    for (name, offset) in [("0", 0), ("2-32", 213), ("2-64", 224), ("near-2-64", 240)] {
        for capacity in [0, 100, 220] {
            let name = format!("at-{name}-{capacity}");
            seeds.write("replay_buffer", &name, &[&[capacity, offset], &steps])?;
        }
    }
    Ok(())
}
