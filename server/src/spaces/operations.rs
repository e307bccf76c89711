//! What people do with spaces: look, decide, write, note it in the audit log, as with accounts. Nothing is run here: the
//! server that a space is placed on hears of it by its record.

use knot_engine::documents::Scope;
use serde_json::json;

use super::limits::{compute_within_limits, unique, within_limits};
use super::placement::{Unplaceable, place};
use super::record::{CustomValue, SHARES_MAX, Server, Shown, SpaceRecord, Wanted, shown};
use super::servers::Servers;
use super::{SPACE_STUBS, SPACES, Spaces, Stub};
use crate::accounts::{AccountError, Caller, Directory, Permission, Refusal, User};
use crate::records;
use crate::templates::Template;

/// A space that is to be made.
#[derive(Clone, Debug, Default)]
pub struct NewSpace {
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What its owner wants to remember.
    pub note: String,
    /// What it is made from.
    pub template_id: String,
    /// Where it runs; the owner's home zone if none is said, and this server's where that has none.
    pub zone: Option<String>,
    /// Whether what is known of it stays in its zone.
    pub resident: bool,
    /// Whose it is; the caller's if nobody's is said.
    pub user_id: Option<String>,
    /// What was filled in for the template's fields.
    pub custom_fields: Vec<CustomValue>,
}

/// What is to become of a space; what is none stays.
#[derive(Clone, Debug, Default)]
pub struct SpaceChange {
    /// What people call it.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What its owner wants to remember.
    pub note: Option<String>,
    /// What is filled in for the template's fields; it counts from the next start on.
    pub custom_fields: Option<Vec<CustomValue>>,
}

/// Where a start may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// Where it ran before; where it never did, on the server that carries least. What runs goes on.
    Somewhere,
    /// The same, and what runs is started anew.
    Again,
    /// On this server, by its id or name, which somebody has chosen.
    On(&'a str),
}

/// What somebody may do with a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// It is shared with them.
    Guest,
    /// It is theirs.
    Owner,
    /// They manage all of them.
    Manager,
}

impl Part {
    fn of(by: &Caller, record: &SpaceRecord) -> Option<Self> {
        if by.may(Permission::ManageSpaces) {
            return Some(Self::Manager);
        }
        let user = by.user().filter(|_| by.may(Permission::UseSpaces))?;
        let part = if record.user_id == user { Self::Owner } else { Self::Guest };
        record.is_for(user).then_some(part)
    }
}

/// Whether somebody sees a space.
pub(super) fn may_see(by: &Caller, record: &SpaceRecord) -> bool {
    Part::of(by, record).is_some()
}

/// Whether somebody may change and delete it, too.
pub(super) fn may_change(by: &Caller, record: &SpaceRecord) -> bool {
    Part::of(by, record).is_some_and(|part| part > Part::Guest)
}

impl Spaces {
    /// Makes a space, which does not run yet; gives its id.
    ///
    /// # Errors
    /// When `by` may not, the space may not be so, its documents are to be elsewhere, or it cannot be written.
    pub async fn create(&self, by: &Caller, new: NewSpace) -> Result<String, AccountError> {
        let servers = self.servers().await?;
        let (_turn, by) = &self.accounts.take_turn(by).await?;
        let record = {
            let directory = self.accounts.directory();
            let owner = owner(by, &directory, new.user_id.as_deref())?;
            let template = directory.template(&new.template_id).ok_or(Refusal::Unknown("template"))?;
            let home = Some(owner.zone.clone()).filter(|zone| !zone.is_empty());
            let zone = new.zone.or(home).unwrap_or_else(|| self.zone.to_string());
            let is_theirs = by.may(Permission::ManageSpaces) || directory.may_use(by, template, &zone);
            check_zone(template, &zone, &servers)?;
            if !is_theirs {
                return Err(Refusal::Unknown("template").into());
            }
            if !template.active {
                return Err(Refusal::invalid("template_id", "a template that is active").into());
            }
            let record = SpaceRecord {
                id: self.accounts.fresh_id(),
                name: new.name,
                description: new.description,
                note: new.note,
                user_id: owner.id.clone(),
                template_id: template.id.clone(),
                zone,
                resident: new.resident,
                custom_fields: new.custom_fields,
                created_at: self.accounts.now(),
                ..SpaceRecord::default()
            };
            check(&record, template, &directory)?;
            within_limits(&directory, owner, &record, template)?;
            record
        };
        self.ensure_here(&record.scope(), &servers)?;
        let details = format!("made the space {}", record.name);
        self.write(&record).await?;
        self.note(by, "space.create", details, &record).await;
        self.accounts.caught_up().await?;
        Ok(record.id)
    }

    /// Changes what is said of a space.
    ///
    /// # Errors
    /// When `by` may not, the space may not be so, or it cannot be written.
    pub async fn change(&self, by: &Caller, id: &str, change: SpaceChange) -> Result<(), AccountError> {
        let (_turn, by) = &self.accounts.take_turn(by).await?;
        let mut record = self.of_owner(by, id).await?;
        record.name = change.name.unwrap_or(record.name);
        record.description = change.description.unwrap_or(record.description);
        record.note = change.note.unwrap_or(record.note);
        // What was filled in for a template as it was is looked at only where it is changed.
        let custom_fields = change.custom_fields.unwrap_or_default();
        {
            let directory = self.accounts.directory();
            let blank = Template::default();
            let template = directory.template(&record.template_id).unwrap_or(&blank);
            check(&SpaceRecord { custom_fields: custom_fields.clone(), ..record.clone() }, template, &directory)?;
        }
        for field in custom_fields {
            match record.custom_fields.iter_mut().find(|held| held.name == field.name) {
                Some(held) => held.value = field.value,
                None => record.custom_fields.push(field),
            }
        }
        self.write(&record).await?;
        self.note(by, "space.update", format!("changed the space {}", record.name), &record).await;
        Ok(self.accounts.caught_up().await?)
    }

    /// Has a space run. Of one that runs nothing is changed, unless it is to run anew.
    ///
    /// # Errors
    /// When `by` may not, no server will do, whether it runs is not known, or it cannot be written.
    pub async fn start(&self, by: &Caller, id: &str, start: Start<'_>) -> Result<(), AccountError> {
        let servers = self.servers().await?;
        let (_turn, by) = &self.accounts.take_turn(by).await?;
        let (mut record, part) = self.of_user(by, id).await?;
        let node_id = {
            let directory = self.accounts.directory();
            let template = directory.template(&record.template_id).ok_or(Refusal::Unknown("template"))?;
            let Some(wished) = where_to(&directory, &record, template, start, &servers)? else { return Ok(()) };
            let candidates = self.candidates(&directory, &servers, id);
            let placed = place(template, &record.zone, &candidates, wished.as_deref());
            let node_id = placed.map_err(|error| Refusal::Unplaceable(servers.named(error)))?.node_id.clone();
            let is_moved = !record.node_id.is_empty() && record.node_id != node_id;
            // Its volumes stay where they are.
            if is_moved && part == Part::Guest && !template.allow_node_migration {
                return Err(Refusal::AboveYou(vec![Permission::ManageSpaces]).into());
            }
            let owner = directory.user(&record.user_id).ok_or(Refusal::Unknown("user"))?;
            compute_within_limits(&directory, owner, &record, template)?;
            record.start(&node_id, directory.spaces().last_generation(id));
            node_id
        };
        self.write(&record).await?;
        let details = format!("started the space {} on {}", record.name, servers.name(&node_id));
        self.note(by, "space.start", details, &record).await;
        Ok(self.accounts.caught_up().await?)
    }

    /// Has a space run no more. Its volumes stay.
    ///
    /// # Errors
    /// When `by` may not, or it cannot be written.
    pub async fn stop(&self, by: &Caller, id: &str) -> Result<(), AccountError> {
        let (_turn, by) = &self.accounts.take_turn(by).await?;
        let (mut record, _) = self.of_user(by, id).await?;
        if record.wanted == Wanted::Stopped {
            return Ok(());
        }
        record.wanted = Wanted::Stopped;
        self.write(&record).await?;
        self.note(by, "space.stop", format!("stopped the space {}", record.name), &record).await;
        Ok(self.accounts.caught_up().await?)
    }

    /// Deletes a space with its volumes, on every server that has any.
    ///
    /// # Errors
    /// When `by` may not, or it cannot be written.
    pub async fn delete(&self, by: &Caller, id: &str) -> Result<(), AccountError> {
        let (_turn, by) = &self.accounts.take_turn(by).await?;
        let record = self.of_owner(by, id).await?;
        let now = self.accounts.now();
        self.accounts.merge_in(record.scope(), SPACES, id, record.deletion(now)).await?;
        self.tell_elsewhere(&SpaceRecord { wanted: Wanted::Deleted, ..record.clone() }).await?;
        self.note(by, "space.delete", format!("deleted the space {}", record.name), &record).await;
        Ok(self.accounts.caught_up().await?)
    }

    /// Gives a space to another user.
    ///
    /// # Errors
    /// When `by` may not, the other may not have it, or it cannot be written.
    pub async fn transfer(&self, by: &Caller, id: &str, to: &str) -> Result<(), AccountError> {
        let (_turn, by) = &self.accounts.take_turn(by).await?;
        let mut record = self.of_owner_who(by, id, Permission::TransferSpaces).await?;
        let new_owner = {
            let directory = self.accounts.directory();
            let user = receiver(&directory, to)?;
            record.user_id.clone_from(&user.id);
            record.shares.remove(&user.id);
            let blank = Template::default();
            let template = directory.template(&record.template_id).unwrap_or(&blank);
            let is_theirs = directory.is_in_groups(user, &template.groups);
            if !is_theirs && !by.may(Permission::ManageSpaces) {
                return Err(Refusal::invalid("user_id", "a user of the template's groups").into());
            }
            unique(&record, &directory)?;
            within_limits(&directory, user, &record, template)?;
            if record.wanted == Wanted::Running {
                compute_within_limits(&directory, user, &record, template)?;
            }
            directory.username(user).into_owned()
        };
        self.write(&record).await?;
        self.note(by, "space.transfer", format!("gave the space {} to {new_owner}", record.name), &record).await;
        Ok(self.accounts.caught_up().await?)
    }

    /// Shares a space with another user, who may then see, start and stop it.
    ///
    /// # Errors
    /// When `by` may not, there is no such user, or it cannot be written.
    pub async fn share(&self, by: &Caller, id: &str, with: &str) -> Result<(), AccountError> {
        let (_turn, by) = &self.accounts.take_turn(by).await?;
        let mut record = self.of_owner_who(by, id, Permission::ShareSpaces).await?;
        let name = {
            let directory = self.accounts.directory();
            let user = receiver(&directory, with)?;
            if user.id == record.user_id {
                return Err(Refusal::invalid("user_id", "somebody whose it is not yet").into());
            }
            record.shares.insert(user.id.clone(), true);
            if record.shares.len() > SHARES_MAX {
                return Err(Refusal::TooMany { kind: "shares of it", max: SHARES_MAX }.into());
            }
            directory.username(user).into_owned()
        };
        self.write(&record).await?;
        self.note(by, "space.share", format!("shared the space {} with {name}", record.name), &record).await;
        Ok(self.accounts.caught_up().await?)
    }

    /// Shares a space no more: with a user, or with anybody.
    ///
    /// # Errors
    /// When `by` may not, it is not shared with that user, or it cannot be written.
    pub async fn unshare(&self, by: &Caller, id: &str, with: Option<&str>) -> Result<(), AccountError> {
        let (_turn, by) = &self.accounts.take_turn(by).await?;
        let mut record = self.of_owner_who(by, id, Permission::ShareSpaces).await?;
        if let Some(with) = with {
            // Whoever is deleted can be named by the id only.
            let user =
                known_as(&self.accounts.directory(), with).map_or_else(|| with.to_owned(), |user| user.id.clone());
            record.shares.remove(&user).ok_or(Refusal::Unknown("user"))?;
        } else {
            record.shares.clear();
        }
        self.write(&record).await?;
        let with = with.unwrap_or("anybody");
        self.note(by, "space.unshare", format!("shares the space {} with {with} no more", record.name), &record).await;
        Ok(self.accounts.caught_up().await?)
    }

    /// The space of this id that `by` sees, and what they may do with it.
    async fn of_user(&self, by: &Caller, id: &str) -> Result<(SpaceRecord, Part), AccountError> {
        let found = find(by, &self.accounts.directory(), id)?;
        match found {
            Found::Here(record, _) if record.wanted == Wanted::Deleted => Err(Refusal::Unknown("space").into()),
            Found::Here(record, part) => Ok((*record, part)),
            Found::Away(stub) => {
                let urls = self.servers().await?.urls_in(&stub.zone);
                Err(AccountError::Elsewhere { zone: stub.zone, urls })
            }
        }
    }

    /// The same where `by` may change it.
    async fn of_owner(&self, by: &Caller, id: &str) -> Result<SpaceRecord, AccountError> {
        match self.of_user(by, id).await? {
            (_, Part::Guest) => Err(Refusal::AboveYou(vec![Permission::ManageSpaces]).into()),
            (record, Part::Owner | Part::Manager) => Ok(record),
        }
    }

    /// The same where an owner needs a permission besides.
    async fn of_owner_who(&self, by: &Caller, id: &str, needs: Permission) -> Result<SpaceRecord, AccountError> {
        let record = self.of_owner(by, id).await?;
        let may = by.may(needs) || by.may(Permission::ManageSpaces);
        if may { Ok(record) } else { Err(Refusal::AboveYou(vec![needs]).into()) }
    }

    /// Refuses what this server would not keep.
    fn ensure_here(&self, scope: &Scope, servers: &Servers) -> Result<(), AccountError> {
        match scope {
            Scope::Zone(zone) if !scope.is_held_in(&self.zone) => {
                Err(AccountError::Elsewhere { zone: zone.to_string(), urls: servers.urls_in(zone) })
            }
            Scope::Zone(_) | Scope::Global => Ok(()),
        }
    }

    /// Writes what a record says that its document does not, and what others are to know of one that is resident.
    async fn write(&self, record: &SpaceRecord) -> Result<(), AccountError> {
        let document = self.accounts.read_in(record.scope(), SPACES, &record.id).await?.unwrap_or_else(|| json!({}));
        if let Some(patch) = record.patch(&document) {
            self.accounts.merge_in(record.scope(), SPACES, &record.id, patch).await?;
        }
        self.tell_elsewhere(record).await
    }

    /// Writes what other zones are to know of a space that is resident.
    pub(super) async fn tell_elsewhere(&self, record: &SpaceRecord) -> Result<(), AccountError> {
        if !record.resident {
            return Ok(());
        }
        let held = self.accounts.read_in(Scope::Global, SPACE_STUBS, &record.id).await?.unwrap_or_else(|| json!({}));
        let patch = match record.wanted {
            Wanted::Deleted => (!records::is_deleted(&held)).then(|| json!({"deleted_at": self.accounts.now()})),
            Wanted::Running | Wanted::Stopped => records::patch(&held, &Stub::of(record)),
        };
        match patch {
            Some(patch) => self.accounts.merge_in(Scope::Global, SPACE_STUBS, &record.id, patch).await,
            None => Ok(()),
        }
    }

    /// Notes what was done. The log goes everywhere, so of a space that is resident it has the id only.
    async fn note(&self, by: &Caller, event: &'static str, details: String, record: &SpaceRecord) {
        let details = if record.resident { format!("{event} of a space in {}", record.zone) } else { details };
        self.accounts.note_about(by, event, details, [("space_id", &record.id)]).await;
    }
}

/// What there is under an id for somebody.
pub(super) enum Found {
    /// Its record, which may be of a space that was deleted, and what they may do with it.
    Here(Box<SpaceRecord>, Part),
    /// That it is resident in another zone.
    Away(Stub),
}

/// The space of this id that `by` sees.
pub(super) fn find(by: &Caller, directory: &Directory, id: &str) -> Result<Found, Refusal> {
    let known = directory.spaces();
    if let Some(record) = known.records().get(id) {
        let part = Part::of(by, record).ok_or(Refusal::Unknown("space"))?;
        return Ok(Found::Here(Box::new(record.clone()), part));
    }
    let stub = known.stub(id).filter(|stub| may_see_stub(by, stub)).ok_or(Refusal::Unknown("space"))?;
    Ok(Found::Away(stub.clone()))
}

/// Whether somebody is told of a space that is resident elsewhere.
pub(super) fn may_see_stub(by: &Caller, stub: &Stub) -> bool {
    by.may(Permission::ManageSpaces) || (by.may(Permission::UseSpaces) && by.user() == Some(&stub.user_id))
}

/// The server that a start is bound to, if any; nothing where it runs as asked for.
fn where_to(
    directory: &Directory,
    record: &SpaceRecord,
    template: &Template,
    start: Start<'_>,
    servers: &Servers,
) -> Result<Option<Option<String>>, Refusal> {
    let known = directory.spaces();
    let before = Some(record.node_id.clone()).filter(|node| !node.is_empty());
    let name = || servers.name(&record.node_id).to_owned();
    let server = servers.state(&record.node_id);
    let shown = shown(record, known.report(record), server);
    // Of starts that were made apart the one that is left may be one that nobody takes up.
    let is_under_way = before.is_some()
        && !known.is_overtaken(record)
        && matches!(shown, Shown::Pending | Shown::Starting | Shown::Running);
    let has_ended = matches!(shown, Shown::Stopped | Shown::Failed { .. } | Shown::Removed);
    let is_there = |wished: &str| wished == record.node_id || wished == name();
    match start {
        Start::Somewhere if is_under_way => Ok(None),
        Start::On(wished) if is_under_way && is_there(wished) => Ok(None),
        // Off a server that answers it goes once it has ended there.
        Start::On(wished) if before.is_some() && !is_there(wished) && !has_ended && server == Server::Alive => {
            Err(Refusal::RunsElsewhere(name()))
        }
        Start::On(wished) => Ok(Some(Some(wished.to_owned()))),
        // Whether it still runs there, nobody here knows.
        Start::Somewhere | Start::Again if matches!(shown, Shown::Unreachable { .. }) => Err(Refusal::Silent(name())),
        Start::Somewhere if template.allow_node_migration && has_ended => Ok(Some(None)),
        Start::Somewhere | Start::Again if before.is_some() && server != Server::Alive => {
            Err(Refusal::VolumesAway(name()))
        }
        Start::Somewhere | Start::Again => Ok(Some(before)),
    }
}

/// Whose a space is to be.
fn owner<'a>(by: &Caller, directory: &'a Directory, wanted: Option<&str>) -> Result<&'a User, Refusal> {
    let Some(id) = wanted.or(by.user()) else {
        return Err(Refusal::invalid("user_id", "the id of whoever is to own it: the machine's token is nobody's"));
    };
    if by.user() != Some(id) && !by.may(Permission::ManageSpaces) {
        return Err(Refusal::AboveYou(vec![Permission::ManageSpaces]));
    }
    directory.user(id).ok_or(Refusal::Unknown("user"))
}

/// A user, by id or name.
fn known_as<'a>(directory: &'a Directory, who: &str) -> Option<&'a User> {
    directory.user(who).or_else(|| directory.find_user(who))
}

/// A user, by id or name, who may be given a space.
fn receiver<'a>(directory: &'a Directory, who: &str) -> Result<&'a User, Refusal> {
    let user = known_as(directory, who).ok_or(Refusal::Unknown("user"))?;
    let permissions = directory.permissions(user);
    let may = permissions.has(Permission::UseSpaces) || permissions.has(Permission::ManageSpaces);
    if user.active && may { Ok(user) } else { Err(Refusal::invalid("user_id", "a user who may use spaces")) }
}

/// Refuses a zone that the template or the cluster does not have.
fn check_zone(template: &Template, zone: &str, servers: &Servers) -> Result<(), Refusal> {
    if !template.is_allowed_in(zone) {
        let (template, zones) = (template.name.clone(), template.zones.join(", "));
        return Err(Refusal::Unplaceable(Unplaceable::Zone { template, zone: zone.to_owned(), zones }));
    }
    if servers.zones().contains(zone) {
        Ok(())
    } else {
        Err(Refusal::Unplaceable(Unplaceable::NoServer { zone: zone.to_owned() }))
    }
}

fn check(record: &SpaceRecord, template: &Template, directory: &Directory) -> Result<(), Refusal> {
    let complaints = record.check(template);
    if !complaints.is_empty() {
        return Err(Refusal::Complaints(complaints));
    }
    unique(record, directory)
}
