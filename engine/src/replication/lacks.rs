//! What a peer lacks of a document, found in bounded memory.
//!
//! A peer that has some changes has their ancestors too. The log is read from its end, in pieces: a change that is one of
//! the peer's heads, or that a change which the peer has depends on, is not lacking; all others are. What has to be
//! remembered on the way is the dependencies not yet met: as many as the document ever had heads side by side.
//!
//! Both that and the result are bounded. Where a bound is met, the peer is sent changes that it has; never too few.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::records::StoredChange;
use crate::documents::Document;
use crate::identity::ChangeHash;

/// Dependencies not yet met: 32 bytes each, and what a set takes around them.
const FRONTIER_MAX: usize = 4_096;
/// Runs of the log in one result; among more, those nearest its end become one.
pub(super) const RUNS_MAX: usize = 32;
/// Changes read at once, at first and at most; fewer where they are large.
const PIECE_CHANGES: u32 = 256;
const PIECE_CHANGES_MAX: u32 = 4_096;

/// Runs of changes by their place in the log, in order: first, and one past the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lacks(VecDeque<(u32, u32)>);

impl Lacks {
    pub(super) fn all(changes: u32) -> Self {
        Self((changes > 0).then_some((0, changes)).into_iter().collect())
    }

    /// The run to send next.
    pub(super) fn first(&self) -> Option<(u32, u32)> {
        self.0.front().copied()
    }

    /// What comes before `place` is sent.
    pub(super) fn sent(&mut self, place: u32) {
        while let Some((start, end)) = self.0.front_mut() {
            *start = (*start).max(place);
            if *start < *end {
                return;
            }
            self.0.pop_front();
        }
    }

    pub(super) fn contains(&self, place: u32) -> bool {
        self.0.iter().any(|(start, end)| (*start..*end).contains(&place))
    }

    /// Whether they are runs of a log of `changes` changes, as [`Scan`] makes them.
    pub(super) fn is_valid(&self, changes: u32) -> bool {
        let apart = self.0.iter().zip(self.0.iter().skip(1)).all(|((_, end), (start, _))| end < start);
        let runs = self.0.iter().all(|(start, end)| start < end && *end <= changes);
        apart && runs && self.0.len() <= RUNS_MAX
    }

    /// Adds a run before all others.
    fn push_front(&mut self, start: u32, end: u32) {
        match self.0.front_mut() {
            Some(first) if first.0 == end => first.0 = start,
            Some(_) | None => self.0.push_front((start, end)),
        }
        if self.0.len() > RUNS_MAX
            && let (Some((_, end)), Some(before)) = (self.0.pop_back(), self.0.back_mut())
        {
            before.1 = end;
        }
    }
}

/// A document's log being gone through.
#[derive(Debug)]
pub(super) struct Scan {
    /// Changes before this place have not been looked at.
    below: u32,
    piece: u32,
    frontier: BTreeSet<ChangeHash>,
    lacks: Lacks,
}

/// The log is not one.
#[derive(Debug)]
pub(super) struct Broken;

impl Scan {
    /// Of a log of `changes` changes, for a peer that has `heads`.
    pub(super) fn new(changes: u32, heads: Vec<ChangeHash>) -> Self {
        let frontier = heads.into_iter().collect();
        Self { below: changes, piece: PIECE_CHANGES, frontier, lacks: Lacks::default() }
    }

    /// Whether the peer has all that was looked at so far.
    pub(super) fn found_nothing(&self) -> bool {
        self.lacks.first().is_none()
    }

    /// The piece to read next: from, and up to. None at the end.
    pub(super) fn wants(&self) -> Option<(u32, u32)> {
        (self.below > 0).then(|| (self.below.saturating_sub(self.piece), self.below))
    }

    /// Takes what was read of that piece; `complete` is false when it was more than `bytes_max`.
    pub(super) fn read<D: Document>(
        &mut self,
        entries: &[(Bytes, Bytes)],
        complete: bool,
        bytes_max: usize,
    ) -> Result<(), Broken> {
        let Some((from, end)) = self.wants() else { return Err(Broken) };
        if !complete && self.piece > 1 {
            // The end of the piece is needed first.
            self.piece = u32::try_from(entries.len() / 2).unwrap_or(1).clamp(1, self.piece / 2);
            return Ok(());
        }
        let mut bytes = 0;
        let mut expected = (from..end).rev();
        for (key, value) in entries.iter().rev() {
            let change = StoredChange::read(key, value).ok_or(Broken)?;
            let header = D::header(&change.chunk).map_err(|_| Broken)?;
            if expected.next() != Some(change.order) {
                return Err(Broken);
            }
            self.look(change.order, &header.hash, header.deps);
            bytes += key.len() + value.len();
        }
        if expected.next().is_some() {
            return Err(Broken);
        }
        self.below = from;
        if self.frontier.len() > FRONTIER_MAX {
            self.give_up();
        }
        if 2 * bytes <= bytes_max {
            self.piece = (2 * self.piece).min(PIECE_CHANGES_MAX);
        }
        Ok(())
    }

    fn look(&mut self, place: u32, hash: &ChangeHash, deps: Vec<ChangeHash>) {
        if self.frontier.remove(hash) {
            self.frontier.extend(deps);
        } else {
            self.lacks.push_front(place, place + 1);
        }
    }

    /// Takes the peer to lack all that was not looked at.
    fn give_up(&mut self) {
        if self.below > 0 {
            self.lacks.push_front(0, self.below);
            self.below = 0;
        }
    }

    pub(super) fn into_lacks(self) -> Lacks {
        self.lacks
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::QuickCheck;

    use super::*;

    fn hash(place: usize) -> ChangeHash {
        ChangeHash(*blake3::hash(&place.to_le_bytes()).as_bytes())
    }

    /// What is lacking by the definition, and as a scan finds it. Each change depends on up to two before it.
    fn both(shape: &[(u16, u16)], heads: &[u16]) -> (Vec<bool>, Lacks) {
        let deps: Vec<Vec<usize>> = shape
            .iter()
            .enumerate()
            .map(|(place, (a, b))| match place {
                0 => Vec::new(),
                _ => vec![usize::from(*a) % place, usize::from(*b) % place],
            })
            .collect();
        let mut has = vec![false; deps.len()];
        let heads: Vec<usize> = heads.iter().map(|head| usize::from(*head) % deps.len().max(1)).collect();
        let mut open = if deps.is_empty() { Vec::new() } else { heads.clone() };
        while let Some(place) = open.pop() {
            if !std::mem::replace(&mut has[place], true) {
                open.extend(&deps[place]);
            }
        }
        let changes = u32::try_from(deps.len()).unwrap();
        let unknown = hash(usize::MAX);
        let mut scan = Scan::new(changes, heads.iter().map(|head| hash(*head)).chain([unknown]).collect());
        for place in (0..changes).rev() {
            let of = &deps[place as usize];
            scan.look(place, &hash(place as usize), of.iter().map(|dep| hash(*dep)).collect());
        }
        (has, scan.into_lacks())
    }

    #[test]
    fn a_scan_finds_what_is_not_behind_the_heads() {
        fn check(shape: Vec<(u16, u16)>, heads: Vec<u16>) -> bool {
            let (has, lacks) = both(&shape, &heads);
            let runs = has.iter().zip(has.iter().skip(1)).filter(|(one, next)| **one && !**next).count() + 1;
            let wanted = |(place, has): (u32, &bool)| match lacks.contains(place) {
                true => !has || runs > RUNS_MAX,
                false => *has,
            };
            lacks.is_valid(u32::try_from(has.len()).unwrap()) && (0..).zip(&has).all(wanted)
        }
        QuickCheck::new().tests(2_000).quickcheck(check as fn(Vec<(u16, u16)>, Vec<u16>) -> bool);
    }

    #[test]
    fn more_runs_than_there_is_room_for_become_one_at_the_end() {
        let mut lacks = Lacks::default();
        for place in (0..200).rev().step_by(2) {
            lacks.push_front(place, place + 1);
        }
        assert!(lacks.is_valid(200));
        assert_eq!(lacks.0.len(), RUNS_MAX);
        assert!((0..200).filter(|place| place % 2 == 1).all(|place| lacks.contains(place)));
        assert!(!lacks.contains(0) && lacks.contains(198));
    }

    #[test]
    fn a_scan_that_has_too_much_to_remember_sends_the_rest() {
        let mut scan = Scan::new(10, Vec::new());
        scan.below = 4;
        scan.give_up();
        assert_eq!(scan.wants(), None);
        assert_eq!(scan.into_lacks(), Lacks::all(4));
    }

    #[test]
    fn what_is_sent_is_lacking_no_more() {
        let mut lacks = Lacks([(2, 4), (6, 9)].into());
        lacks.sent(3);
        assert_eq!(lacks.first(), Some((3, 4)));
        lacks.sent(4);
        assert_eq!(lacks.first(), Some((6, 9)));
        lacks.sent(9);
        assert_eq!(lacks.first(), None);
    }

    #[test]
    fn runs_that_no_scan_makes_are_refused() {
        let valid = |runs: &[(u32, u32)]| Lacks(runs.iter().copied().collect()).is_valid(10);
        assert!(valid(&[]) && valid(&[(0, 10)]) && valid(&[(0, 1), (2, 3)]));
        assert!(!valid(&[(0, 11)]) && !valid(&[(3, 3)]) && !valid(&[(4, 2)]) && !valid(&[(5, 7), (1, 2)]));
        assert!(!valid(&[(0, 5), (4, 6)]));
    }
}
