//! What a page leaves out so that it stays small.
//!
//! Everything of the last moments stays: the run ends where a promise breaks. Before them, every k-th message, those that
//! carry or compare documents more often than those of membership.

use std::time::Duration;

use knot_engine::Instant;
use serde::Serialize;

use crate::recording::{Fate, Message};

/// The last moments, the longest whose messages fit first.
const MOMENTS: [Duration; 8] = [
    Duration::from_secs(60),
    Duration::from_secs(30),
    Duration::from_secs(15),
    Duration::from_secs(8),
    Duration::from_secs(4),
    Duration::from_secs(2),
    Duration::from_secs(1),
    Duration::from_millis(250),
];

/// Which messages are drawn, for people.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Rule {
    /// Messages that were sent.
    pub(super) sent: usize,
    /// Of these, drawn.
    pub(super) drawn: usize,
    /// From here on all are drawn, in microseconds.
    pub(super) all_from: u64,
    /// Before, one of this many of those about documents is drawn.
    pub(super) documents: usize,
    /// And one of this many of the rest.
    pub(super) rest: usize,
}

/// At most about `most` of `messages`, in the order in which they were sent.
pub(super) fn messages(messages: &[Message], most: usize, end: Instant) -> (Vec<Message>, Rule) {
    let rule = rule(messages, most, end);
    let mut seen = [0; 2];
    let drawn: Vec<Message> = messages
        .iter()
        .filter(|message| {
            if message.sent.as_micros() >= rule.all_from {
                return true;
            }
            let class = usize::from(!is_about_documents(message));
            seen[class] += 1;
            seen[class] % [rule.documents, rule.rest][class] == 0
        })
        .copied()
        .collect();
    let rule = Rule { drawn: drawn.len(), ..rule };
    (drawn, rule)
}

fn rule(messages: &[Message], most: usize, end: Instant) -> Rule {
    let sent = messages.len();
    if sent <= most {
        return Rule { sent, drawn: sent, all_from: 0, documents: 1, rest: 1 };
    }
    let from = |moment: Duration| end.as_micros().saturating_sub(u64::try_from(moment.as_micros()).unwrap_or(u64::MAX));
    let since = |from: u64| sent - messages.partition_point(|message| message.sent.as_micros() < from);
    let all_from =
        MOMENTS.into_iter().map(from).find(|from| since(*from) <= most / 2).unwrap_or_else(|| end.as_micros());
    let before = &messages[..sent - since(all_from)];
    let about_documents = before.iter().filter(|message| is_about_documents(message)).count();
    let room = most - since(all_from).min(most);
    let one_of = |count: usize, room: usize| count.div_ceil(room.max(1)).max(1);
    let documents = one_of(about_documents, room * 2 / 3);
    let rest = one_of(before.len() - about_documents, room - (about_documents / documents).min(room));
    Rule { sent, drawn: 0, all_from, documents, rest }
}

fn is_about_documents(message: &Message) -> bool {
    message.kind.is_replication() || matches!(message.fate, Fate::StreamEnded(_))
}

/// The moments of `times` that stay, as places: the last of each step of time, and all from `all_from` on. The step is the
/// shortest at which at most about `most` stay.
pub(super) fn steps<T>(series: &[&[(Instant, T)]], most: usize, all_from: u64) -> u64 {
    let count = |step: u64| -> usize {
        let kept = series.iter().map(|times| kept_at(times, step, all_from).len());
        kept.sum()
    };
    let mut step = 1;
    while count(step) > most && step < 60_000_000 {
        step = if step == 1 { 1_000 } else { step * 2 };
    }
    step
}

/// The places in a series that stay at this step.
pub(super) fn kept_at<T>(series: &[(Instant, T)], step: u64, all_from: u64) -> Vec<usize> {
    let slot = |at: usize| series.get(at).map(|(time, _)| time.as_micros() / step);
    let stays = |at: &usize| {
        let from = series.get(*at).map_or(0, |(time, _)| time.as_micros());
        from >= all_from || slot(*at) != slot(*at + 1)
    };
    (0..series.len()).filter(stays).collect()
}
