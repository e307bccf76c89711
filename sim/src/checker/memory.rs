//! What a server knows of members is on its disk.

use knot_engine::Instant;
use knot_engine::membership::{Member, Status};

use super::{Checkers, Invariant};

impl Checkers {
    /// A server that has known these members for a while, and what an engine makes of them that starts from its disk.
    /// Some have never answered this start: what was known of them before is kept.
    pub(crate) fn check_memory(
        &mut self,
        node: usize,
        members: &[(Member, bool)],
        recalled: impl Fn(&Member) -> Option<Member>,
        now: Instant,
    ) {
        for (member, given_up) in members {
            let recalled = recalled(member);
            if recalled.as_ref().is_none_or(|recalled| !is_recalled(member, recalled, *given_up)) {
                self.report(Invariant::MembersRemembered, now, node, || {
                    format!("it knows {member:?}, and its disk says {recalled:?}")
                });
                return;
            }
        }
    }
}

/// After a start nobody counts as alive until something is heard of it.
fn is_recalled(member: &Member, recalled: &Member, given_up: bool) -> bool {
    let status = member.status.max(Status::Suspect);
    let as_known = recalled.status == status || given_up && recalled.status == Status::Suspect;
    as_known && recalled.record == member.record && recalled.durable == member.durable
}
