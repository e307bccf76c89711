//! Datagrams of a few servers that start anew and change their keys.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use knot_engine::seal::{
    ClusterKey, DATAGRAM_BODY_BYTES_MAX, DATAGRAM_BYTES_MAX, DatagramDrop, Datagrams, KeyId, KeyRing, PEERS_MAX,
    REPLAY_WINDOW,
};
use knot_engine::{Boot, NodeId};

use super::{Kept, altered, cluster_key, hold, node_key, noise, shows};
use crate::draw::Draw;

const SERVERS: usize = 3;
const STEPS: usize = 700;
/// Bytes of a datagram beside its body.
const AROUND_BYTES: usize = 45;
/// One seed in so many has as many peers as there is room for.
const CROWDED_ONE_IN: u64 = 16;

struct Server {
    node: NodeId,
    boot: Boot,
    keys: Vec<ClusterKey>,
    pipe: Datagrams,
    /// Who it takes for present: the boots of the others that it knows.
    known: Vec<Boot>,
    /// Under which key it last heard each boot of another.
    heard: BTreeMap<(usize, Boot), KeyId>,
    /// The counters that it has accepted, by sender, its boot, and key.
    accepted: BTreeMap<(usize, Boot, KeyId), BTreeSet<u64>>,
}

#[derive(Clone)]
struct Sent {
    from: usize,
    from_boot: Boot,
    to: usize,
    to_boot: Boot,
    key: KeyId,
    counter: u64,
    body: Bytes,
    bytes: Bytes,
}

struct Run<'a> {
    draw: &'a mut Draw,
    servers: Vec<Server>,
    under_way: Vec<Sent>,
    /// What has been sealed with each key from one boot to another: a counter that comes twice gives the key away.
    counters: BTreeSet<(usize, Boot, usize, Boot, KeyId, u64)>,
}

pub(super) fn run(draw: &mut Draw, seed: u64) -> Kept {
    let mut run = Run { servers: Vec::new(), under_way: Vec::new(), counters: BTreeSet::new(), draw };
    for _ in 0..SERVERS {
        let (node, boot) = (node_key(run.draw).node_id(), boot(run.draw));
        let keys = vec![cluster_key(0)];
        let pipe = Datagrams::new(ring(&keys), node, boot);
        let (heard, accepted) = (BTreeMap::new(), BTreeMap::new());
        run.servers.push(Server { node, boot, keys, pipe, known: Vec::new(), heard, accepted });
    }
    for at in 0..SERVERS {
        let known = run.servers.iter().map(|server| server.boot).collect();
        run.servers[at].known = known;
    }
    if seed.is_multiple_of(CROWDED_ONE_IN) {
        return run.crowd();
    }
    for _ in 0..STEPS {
        run.step()?;
    }
    run.windows()
}

fn boot(draw: &mut Draw) -> Boot {
    let [boot @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = draw.bytes();
    Boot(boot)
}

fn ring(keys: &[ClusterKey]) -> Option<KeyRing> {
    let (first, others) = keys.split_first()?;
    Some(KeyRing::new(first.clone(), others.iter().cloned()))
}

impl Run<'_> {
    fn step(&mut self) -> Kept {
        let (from, to) = self.pair();
        match self.draw.index(40) {
            0..16 => self.seal(from, to, None),
            16..33 => self.arrive(),
            33..35 => self.spoil(),
            35 => self.start_anew(from),
            36 => self.learn(from, to),
            37 | 38 => {
                self.change_keys(from);
                Ok(())
            }
            _ => {
                // Who is forgotten, and returns with the same boot, finds all as it was.
                let node = self.servers[to].node;
                self.servers[from].pipe.forget(node);
                Ok(())
            }
        }
    }

    fn pair(&mut self) -> (usize, usize) {
        let from = self.draw.index(SERVERS);
        (from, (from + 1 + self.draw.index(SERVERS - 1)) % SERVERS)
    }

    fn seal(&mut self, from: usize, to: usize, length: Option<usize>) -> Kept {
        let usual = [0, 1, 12, 100, 899, DATAGRAM_BODY_BYTES_MAX - 1, DATAGRAM_BODY_BYTES_MAX];
        let length = length.unwrap_or_else(|| *self.draw.pick(&usual));
        let body: Bytes = noise(self.draw, length).into();
        let node = self.servers[to].node;
        let sender = &mut self.servers[from];
        let to_boot = sender.known[to];
        let long = sender.pipe.seal(node, to_boot, &[0; DATAGRAM_BODY_BYTES_MAX + 1]);
        hold(long.is_none(), || "a body that is too long was sealed".to_owned())?;
        let bytes = sender.pipe.seal(node, to_boot, &body).ok_or("a body was not sealed")?;
        let around = bytes.len().checked_sub(length);
        hold(around == Some(AROUND_BYTES) && bytes.len() <= DATAGRAM_BYTES_MAX, || {
            format!("a body of {length} bytes takes {}", bytes.len())
        })?;
        hold(!shows(&bytes, &body), || "a body can be read on the way".to_owned())?;
        let key = KeyId(part(&bytes, 1).unwrap_or_default());
        let counter = u64::from_le_bytes(part(&bytes, 21).unwrap_or_default());
        let answers = sender.heard.get(&(to, to_boot)).filter(|key| sender.keys.iter().any(|own| own.id() == **key));
        let due = answers.copied().unwrap_or_else(|| sender.keys[0].id());
        hold(key == due, || format!("sealed under {key}, and the other speaks under {due}"))?;
        let used = (from, sender.boot, to, to_boot, key, counter);
        hold(self.counters.insert(used), || format!("counter {counter} was used twice with {key}"))?;
        let from_boot = sender.boot;
        self.under_way.push(Sent { from, from_boot, to, to_boot, key, counter, body, bytes });
        Ok(())
    }

    /// One of those under way arrives; it may arrive again.
    fn arrive(&mut self) -> Kept {
        if self.under_way.is_empty() {
            return Ok(());
        }
        let at = self.draw.index(self.under_way.len());
        let sent = if self.draw.chance(300) { self.under_way[at].clone() } else { self.under_way.swap_remove(at) };
        self.deliver(&sent)
    }

    fn deliver(&mut self, sent: &Sent) -> Kept {
        let nodes: Vec<NodeId> = self.servers.iter().map(|server| server.node).collect();
        let taker = &mut self.servers[sent.to];
        let known = taker.known.clone();
        let boot_of = |node: NodeId| known.get(nodes.iter().position(|other| *other == node)?).copied();
        let opened = taker.pipe.open(&sent.bytes, boot_of);
        let seen = taker.accepted.entry((sent.from, sent.from_boot, sent.key)).or_default();
        let is_new = seen.last().is_none_or(|highest| sent.counter + REPLAY_WINDOW > *highest);
        let due = if taker.keys.iter().all(|key| key.id() != sent.key) {
            Err(DatagramDrop::UnknownKey)
        } else if taker.boot != sent.to_boot || taker.known[sent.from] != sent.from_boot {
            Err(DatagramDrop::Forged)
        } else if !is_new || seen.contains(&sent.counter) {
            Err(DatagramDrop::Replayed)
        } else {
            Ok((nodes[sent.from], sent.body.clone()))
        };
        // A boot that is not present may have left a window behind, which says that it was here before.
        let is_dropped = matches!((&opened, &due), (Err(DatagramDrop::Replayed), Err(DatagramDrop::Forged)));
        hold(opened == due || is_dropped, || {
            format!("counter {} is taken as {:?}, and not as {:?}", sent.counter, opened.err(), due.clone().err())
        })?;
        if due.is_ok() {
            seen.insert(sent.counter);
            taker.heard.insert((sent.from, sent.from_boot), sent.key);
        }
        Ok(())
    }

    /// What nobody sealed for this server arrives there: altered, cut, prolonged, or meant for another.
    fn spoil(&mut self) -> Kept {
        if self.under_way.is_empty() {
            return Ok(());
        }
        let at = self.draw.index(self.under_way.len());
        let sent = self.under_way[at].clone();
        let mut to = sent.to;
        let mut due = None;
        let bytes = match self.draw.index(4) {
            0 => altered(self.draw, &sent.bytes),
            1 => {
                let length = self.draw.index(sent.bytes.len());
                due = (length < AROUND_BYTES).then_some(DatagramDrop::TooShort);
                sent.bytes.slice(..length)
            }
            2 => {
                due = Some(DatagramDrop::TooLong);
                let mut long = sent.bytes.to_vec();
                long.resize(DATAGRAM_BYTES_MAX + 1, 0);
                long.into()
            }
            _ => {
                to = (0..SERVERS).find(|other| *other != sent.from && *other != sent.to).unwrap_or(sent.from);
                sent.bytes.clone()
            }
        };
        let nodes: Vec<NodeId> = self.servers.iter().map(|server| server.node).collect();
        let taker = &mut self.servers[to];
        let known = taker.known.clone();
        let opened = taker.pipe.open(&bytes, |node| known.get(nodes.iter().position(|other| *other == node)?).copied());
        hold(opened.is_err(), || "something was opened that nobody sealed for this server".to_owned())?;
        let stranger = taker.pipe.open(&sent.bytes, |_| None);
        let is_refused = matches!(stranger, Err(DatagramDrop::UnknownSender | DatagramDrop::UnknownKey));
        hold(is_refused, || format!("a stranger's datagram: {stranger:?}"))?;
        hold(due.is_none() || opened == Err(due.unwrap_or(DatagramDrop::Version)), || {
            format!("a datagram of {} bytes is dropped as {opened:?}", bytes.len())
        })
    }

    /// A server starts anew, with what its last start knew of nobody.
    fn start_anew(&mut self, at: usize) -> Kept {
        let boot = boot(self.draw);
        let server = &mut self.servers[at];
        server.boot = boot;
        server.pipe = Datagrams::new(ring(&server.keys), server.node, boot);
        server.heard.clear();
        server.accepted.clear();
        server.known[at] = boot;
        Ok(())
    }

    /// A server learns of the present start of another.
    fn learn(&mut self, at: usize, other: usize) -> Kept {
        let boot = self.servers[other].boot;
        self.servers[at].known[other] = boot;
        self.seal(at, other, Some(1))
    }

    fn change_keys(&mut self, at: usize) {
        let number = u8::try_from(self.draw.index(3)).unwrap_or(0);
        let key = cluster_key(number);
        let first = self.draw.chance(500);
        let server = &mut self.servers[at];
        server.keys.retain(|own| *own != key);
        if first || server.keys.is_empty() {
            server.keys.insert(0, key);
        } else {
            server.keys.push(key);
        }
        if server.keys.len() > 2 {
            server.keys.remove(1);
        }
        if let Some(ring) = ring(&server.keys) {
            server.pipe.set_keys(ring);
        }
    }

    /// So many are on their way at once that some come too late for the window, some just in time. What came before the
    /// latest comes again.
    fn windows(&mut self) -> Kept {
        self.under_way.clear();
        let mut came: Vec<Sent> = Vec::new();
        let length = usize::try_from(REPLAY_WINDOW).unwrap_or(0);
        for burst in [30, 70, length - 66, length / 2, 2 * length + 1, length, 3] {
            self.learn(0, 1)?;
            let sent = self.under_way.pop().ok_or("nothing was sealed")?;
            for _ in 0..burst {
                self.seal(0, 1, Some(0))?;
            }
            let last = self.under_way.last().ok_or("nothing was sealed")?.clone();
            let mut late = std::mem::take(&mut self.under_way);
            self.draw.shuffle(&mut late);
            late.truncate(200);
            self.deliver(&last)?;
            self.deliver(&sent)?;
            for sent in came.iter().chain(&late).chain(&late) {
                self.deliver(sent)?;
            }
            came = late;
        }
        Ok(())
    }

    /// There are more peers than there is room for. Who was forgotten first makes room, and no counter comes again.
    fn crowd(&mut self) -> Kept {
        let (me, key) = (self.servers[0].node, self.servers[0].keys[0].clone());
        let mut pipe = Datagrams::new(Some(key.into()), me, self.servers[0].boot);
        let peer = |number: usize| NodeId((number as u128 + 7).to_be_bytes());
        let there = Boot([3; 16]);
        let counter = |bytes: &Bytes| part(bytes, 21).map(u64::from_le_bytes);
        let seal = |number: usize, pipe: &mut Datagrams| pipe.seal(peer(number), there, &[]);
        let (first, second) = (seal(0, &mut pipe).ok_or("the first")?, seal(0, &mut pipe).ok_or("the second")?);
        for number in 1..PEERS_MAX {
            hold(seal(number, &mut pipe).is_some(), || format!("there is no room for peer {number}"))?;
        }
        hold(seal(PEERS_MAX, &mut pipe).is_none(), || "there is room for more peers than there may be".to_owned())?;
        pipe.forget(peer(0));
        let back = seal(0, &mut pipe).ok_or("who was forgotten is back")?;
        pipe.forget(peer(0));
        pipe.forget(peer(1));
        hold(seal(PEERS_MAX, &mut pipe).is_some(), || "nobody made room".to_owned())?;
        hold(seal(PEERS_MAX + 1, &mut pipe).is_some(), || "the second made no room".to_owned())?;
        hold(seal(PEERS_MAX + 2, &mut pipe).is_none(), || "who was not forgotten made room".to_owned())?;
        pipe.forget(peer(5));
        let again = seal(0, &mut pipe).ok_or("the first is back")?;
        let counters: Vec<Option<u64>> = [&first, &second, &back, &again].map(counter).to_vec();
        hold(counters.is_sorted() && counters.windows(2).all(|two| two[0] != two[1]), || {
            format!("counters do not rise: {counters:?}")
        })
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
