//! Peers that have gone without a word, told apart from those that only do not read.
//!
//! ```text
//! nothing is owed         keepalive of the kernel: gone after 30 s without an answer
//! bytes are outstanding   a look every 5 s: gone after 30 s without a word, if the kernel has
//!                         asked for one twice and has had the time to ask again
//! ```
//! `TCP_USER_TIMEOUT` would do for the second, but it counts from when the peer's window closed,
//! also while the peer answers every probe of it: a reader that pauses for half a minute would be
//! reset. RFC 9293 section 3.8.6.1 wants it kept; what bounds its pause is the idle time of the
//! route, the listener or the cluster.
//!
//! # Invariants
//! - A peer that answers is not given up here, however little it reads; nor for one question or
//!   answer that was lost.
//! - Only connections that owe nothing rest outside the runtime, where nobody looks.

use std::rc::Rc;
use std::time::Duration;

use super::deadlines::Deadlines;
use super::turn;
use crate::limits::{SILENCE_LOOK_ENTRIES, SILENCE_LOOK_INTERVAL, SILENCE_TIME};
use crate::sys::stream::{Answers, Stream};

/// The kernel lets no more time pass between two questions (`TCP_RTO_MAX`).
const QUESTION_INTERVAL_MAX: Duration = Duration::from_secs(120);
/// Unanswered questions of the kernel, at least: one may be lost, or its answer.
const QUESTIONS_MIN: u8 = 2;
/// How much later than it was due a question, or the answer to it, may be.
const GRACE: Duration = Duration::from_secs(1);

/// Looks at the connections of a worker again and again, and gives up those whose peers are gone;
/// `on_gone` is called for each.
pub async fn watch_forever(deadlines: Rc<Deadlines>, on_gone: impl Fn()) {
    loop {
        monoio::time::sleep(SILENCE_LOOK_INTERVAL).await;
        let mut from = Some(0);
        while let Some(key) = from {
            from = deadlines.look(key, SILENCE_LOOK_ENTRIES, |stream| {
                if is_gone(stream) {
                    stream.give_up();
                    on_gone();
                }
            });
            if from.is_some() {
                turn::round().await;
            }
        }
    }
}

fn is_gone(stream: &Stream) -> bool {
    // The cheaper question first: nearly always nothing is outstanding.
    stream.outstanding().is_ok_and(|bytes| bytes > 0)
        && stream.answers().is_ok_and(silent_for_too_long)
}

/// Whether a peer that owes acknowledgements owes them for too long.
fn silent_for_too_long(answers: Answers) -> bool {
    !answers.closed
        && answers.asked >= QUESTIONS_MIN
        && answers.silence >= SILENCE_TIME
        && answers.silence >= question_interval(answers) + GRACE
}

/// The time between the last question of the kernel and the next: a peer that answers has been
/// silent for no longer. The timeout of a retransmission is doubled where it stands, that of a
/// probe of a closed window on use.
fn question_interval(answers: Answers) -> Duration {
    let doubled = if answers.in_flight { 0 } else { answers.doubled.min(31) };
    answers.timeout.saturating_mul(1 << doubled).min(QUESTION_INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `silence` seconds after the last answer; `timeout` is in milliseconds.
    fn answers(silence: u64, timeout: u64, doubled: u8, in_flight: bool) -> Answers {
        let (silence, timeout) = (Duration::from_secs(silence), Duration::from_millis(timeout));
        Answers { silence, asked: 7, closed: false, in_flight, timeout, doubled }
    }

    #[test]
    fn a_peer_that_acknowledges_no_segment_is_gone_after_half_a_minute() {
        // As after seven retransmissions: 0.2 s, 0.4 s, up to 12.8 s.
        assert!(!silent_for_too_long(answers(29, 25_600, 7, true)));
        assert!(silent_for_too_long(answers(30, 25_600, 7, true)));
    }

    #[test]
    fn a_peer_whose_answer_cannot_be_there_yet_is_not_gone() {
        // A slow path: the next retransmission is due after 48 s.
        assert!(!silent_for_too_long(answers(45, 48_000, 4, true)));
        assert!(silent_for_too_long(answers(49, 48_000, 4, true)));
    }

    #[test]
    fn a_question_that_was_lost_proves_nothing_and_neither_does_a_connection_that_is_over() {
        for asked in 0..QUESTIONS_MIN {
            assert!(!silent_for_too_long(Answers { asked, ..answers(3600, 200, 0, true) }));
        }
        assert!(!silent_for_too_long(Answers { closed: true, ..answers(3600, 200, 0, true) }));
    }

    #[test]
    fn a_peer_with_a_closed_window_has_as_long_as_the_kernel_lets_pass_between_probes() {
        // The window has been closed for minutes; a probe comes every 51.2 s, then 102.4 s.
        assert!(!silent_for_too_long(answers(51, 200, 8, false)));
        assert!(silent_for_too_long(answers(53, 200, 8, false)));
        assert!(!silent_for_too_long(answers(102, 200, 9, false)));
        // And never less often than every two minutes.
        assert!(!silent_for_too_long(answers(120, 200, 15, false)));
        assert!(silent_for_too_long(answers(121, 200, 15, false)));
        assert!(silent_for_too_long(answers(121, 200, 255, false)));
    }
}
