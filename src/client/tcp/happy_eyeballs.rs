//! Happy Eyeballs (RFC 8305): in which order the addresses of a name are tried, and when.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::time::sleep;

/// Section 5: the connection attempt delay "MUST NOT be less than 10 milliseconds".
pub(super) const MIN_ATTEMPT_DELAY: Duration = Duration::from_millis(10);

/// Section 4: families alternate, beginning with the first address's; within one the resolver's order stands.
pub(super) fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let round = [first.next(), second.next()];
        if round == [None, None] {
            return ordered;
        }
        ordered.extend(round.into_iter().flatten());
    }
}

/// Section 5: an attempt starts when `delay` has passed since the one before, or at once when one fails. The first to
/// succeed wins, and the others are dropped; the error is the last one to occur, `None` if there were no addresses.
pub(super) async fn race<F, T>(
    addresses: Vec<SocketAddr>,
    delay: Duration,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, Option<io::Error>>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    let mut last_error = None;
    let mut next_due = pin!(sleep(delay));
    poll_fn(|cx| {
        loop {
            let mut one_failed = false;
            let mut index = 0;
            while let Some(attempt) = running.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(won)) => return Poll::Ready(Ok(won)),
                    Poll::Ready(Err(error)) => {
                        last_error = Some(error);
                        one_failed = true;
                        drop(running.remove(index));
                    }
                    Poll::Pending => index += 1,
                }
            }
            // The timer is polled only if nothing else starts an attempt, which would set it anew.
            if !one_failed && !running.is_empty() && next_due.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match waiting.next() {
                Some(address) => {
                    running.push(Box::pin(attempt(address)));
                    next_due.set(sleep(delay));
                }
                None if running.is_empty() => return Poll::Ready(Err(last_error.take())),
                None => return Poll::Pending,
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use tokio::time::Instant;

    use super::*;

    const DELAY: Duration = Duration::from_millis(250);

    fn addresses(last_octets: &[u8]) -> Vec<SocketAddr> {
        last_octets
            .iter()
            .map(|&octet| ([192, 0, 2, octet], 7).into())
            .collect()
    }

    /// Each address's last octet says what becomes of an attempt: 0 hangs, 100 and up fail after that many milliseconds,
    /// and the rest succeed after that many.
    async fn run(octets: &[u8]) -> (Result<u8, Option<String>>, Vec<u64>, u64) {
        let begin = Instant::now();
        let elapsed = || begin.elapsed().as_millis() as u64;
        let starts = RefCell::new(Vec::new());
        let outcome = race(addresses(octets), DELAY, |address| {
            starts.borrow_mut().push(elapsed());
            async move {
                let octet = address
                    .to_string()
                    .split(['.', ':'])
                    .nth(3)
                    .and_then(|octet| octet.parse().ok());
                match octet.unwrap_or(0) {
                    0 => pending().await,
                    octet => {
                        sleep(Duration::from_millis(u64::from(octet))).await;
                        if octet < 100 {
                            Ok(octet)
                        } else {
                            Err(io::Error::other(octet.to_string()))
                        }
                    }
                }
            }
        })
        .await;
        let outcome = outcome.map_err(|error| error.map(|error| error.to_string()));
        (outcome, starts.into_inner(), elapsed())
    }

    /// Virtual time: exact, and nothing is waited for.
    #[tokio::test(start_paused = true)]
    async fn attempts_are_staggered() {
        let error = |text: &str| Err(Some(text.to_owned()));
        for (octets, outcome, starts, end) in [
            // The first succeeds before the second is due.
            (&[9, 9][..], Ok(9), &[0][..], 9),
            // Hanging addresses cost one delay each and are dropped by the winner.
            (&[0, 0, 8, 9], Ok(8), &[0, 250, 500], 508),
            // A failure starts the next at once, and the delay counts from there.
            (&[100, 0, 9], Ok(9), &[0, 100, 350], 359),
            // So it is beside an attempt that hangs, be the one that failed the newest or an earlier one.
            (&[0, 100, 9], Ok(9), &[0, 250, 350], 359),
            (&[255, 0, 9], Ok(9), &[0, 250, 255], 264),
            (&[200, 201, 150], error("150"), &[0, 200, 401], 551),
            // All have started: nothing is due any more, the running ones decide.
            (&[100], error("100"), &[0], 100),
            (&[], Err(None), &[], 0),
        ] {
            assert_eq!(
                run(octets).await,
                (outcome, starts.to_vec(), end),
                "{octets:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_without_end_waits_for_failure() {
        let race = race(addresses(&[1, 2]), Duration::MAX, |_| {
            pending::<io::Result<()>>()
        });
        assert!(
            tokio::time::timeout(Duration::from_secs(3_600), race)
                .await
                .is_err()
        );
    }

    #[test]
    fn families_alternate() {
        for (given, expected) in [
            ("", ""),
            ("4a 4b", "4a 4b"),
            ("6a 6b 6c 4a 4b", "6a 4a 6b 4b 6c"),
            ("4a 6a 6b 4b 6c", "4a 6a 4b 6b 6c"),
        ] {
            let parse = |list: &str| -> Vec<SocketAddr> {
                list.split_whitespace()
                    .map(|name| match name.split_at(1) {
                        ("4", letter) => ([192, 0, 2, letter.as_bytes()[0]], 7).into(),
                        (_, letter) => (
                            [
                                0x2001,
                                0xdb8,
                                0,
                                0,
                                0,
                                0,
                                0,
                                u16::from(letter.as_bytes()[0]),
                            ],
                            7,
                        )
                            .into(),
                    })
                    .collect()
            };
            assert_eq!(interleave(parse(given)), parse(expected), "{given}");
        }
    }
}
