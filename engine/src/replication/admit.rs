//! Taking a change from a peer: judged on its metadata alone, stored, and tried when its document is next read.

use super::batch::Done;
use super::open::Incoming;
use super::records::DocKey;
use super::replica::{Effect, Replica};
use crate::api::Event;
use crate::documents::gate::{Judgement, judge};
use crate::documents::{ChangeHeader, ChangeKind, Document, Quarantine};
use crate::faults::Fault;
use crate::sometimes;
use crate::stats::Stats;
use crate::time::Instant;

impl<D: Document> Replica<D> {
    pub(super) fn admit(&mut self, key: DocKey, incoming: Incoming, _now: Instant, stats: &mut Stats) {
        let Ok(header) = D::header(&incoming.chunk) else {
            stats.dropped("malformed change");
            self.delivered(incoming.ticket, 1, false);
            return;
        };
        if self.faults.has(Fault::TombstoneDropped) && incoming.ticket.is_some() && header.kind == ChangeKind::Delete {
            self.delivered(incoming.ticket, 1, true);
            return;
        }
        let Some(log) = self.open.get(&key).and_then(|open| open.log.as_ref()) else { return };
        match judge(log, &header) {
            Judgement::Known => self.known(key, &incoming),
            Judgement::Admit if self.faults.has(Fault::FirstComeStands) && log.displaces(&header) => {
                self.admitted(key, &header, incoming, Some(Quarantine::SequenceGap));
            }
            Judgement::Admit => self.admitted(key, &header, incoming, None),
            Judgement::Quarantine(_) if self.faults.has(Fault::GateOpen) => self.admitted(key, &header, incoming, None),
            Judgement::Quarantine(why) => {
                sometimes!("refused untried");
                stats.quarantined += 1;
                if let Some(document) = self.open.get(&key).map(|open| open.id.clone()) {
                    let change = header.hash;
                    self.effects.push_back(Effect::Event(Event::Quarantined { document, change, why }));
                }
                self.admitted(key, &header, incoming, Some(why));
            }
            Judgement::Orphan { .. } if self.faults.has(Fault::GapAccepted) => {
                let heads = log.heads();
                self.admitted(key, &ChangeHeader { deps: heads, ..header }, incoming, None);
            }
            Judgement::Orphan { .. } => self.orphaned(key, &header, incoming, stats),
        }
    }

    /// The change is here already, but perhaps not durable yet.
    fn known(&mut self, key: DocKey, incoming: &Incoming) {
        let batch = self.open.get(&key).and_then(|open| open.batch).filter(|batch| self.batches.is_pending(*batch));
        sometimes!("pushed again while written", batch.is_some() && incoming.ticket.is_some());
        match (batch, incoming.ticket) {
            (None, _) => {
                sometimes!("change came again");
                self.delivered(incoming.ticket, 1, true);
            }
            (Some(batch), Some(ticket)) if !self.faults.has(Fault::HeldWhenKnown) => {
                self.batches.after(batch, Done::Ticket(ticket))
            }
            (_, ticket) => self.delivered(ticket, 1, true),
        }
    }

    fn admitted(&mut self, key: DocKey, header: &ChangeHeader, incoming: Incoming, quarantine: Option<Quarantine>) {
        self.append(key, header, incoming.chunk, quarantine, incoming.origin);
        if let Some(ticket) = incoming.ticket {
            self.batches.then(Done::Ticket(ticket));
        }
        // It may be what others waited for.
        let orphans = self.orphans.take(&key);
        sometimes!("orphan adopted", !orphans.is_empty());
        let Some(open) = self.open.get_mut(&key) else { return };
        for chunk in orphans {
            self.incoming_bytes += chunk.len();
            open.incoming.push_back(Incoming { chunk, ticket: None, from: None, origin: incoming.origin });
        }
    }

    fn orphaned(&mut self, key: DocKey, header: &ChangeHeader, incoming: Incoming, stats: &mut Stats) {
        sometimes!("orphan kept");
        let Incoming { chunk, ticket, from, origin: _ } = incoming;
        for _ in 0..self.orphans.keep(key, header.hash, chunk) {
            sometimes!("orphan evicted");
            stats.dropped("orphans without room");
        }
        self.delivered(ticket, 1, self.faults.has(Fault::OrphanHeld));
        if let (Some(from), Some(open)) = (from, self.open.get(&key)) {
            self.effects.push_back(Effect::Missing { document: open.id.clone(), from });
        }
    }
}
