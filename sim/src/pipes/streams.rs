//! Streams of frames between two servers.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use knot_engine::seal::KeyRing;
use knot_engine::session::{
    Config, FRAME_BYTES_MAX, Role, SendError, Session, SessionError, SessionEvent, TRANSMIT_BYTES_MAX, UNREAD_BYTES_MAX,
};
use knot_engine::{Boot, ClusterId, PeerIdentity};

use super::{Kept, cluster_key, hold, node_key, noise, shows};
use crate::draw::Draw;

const STEPS: usize = 120;
/// Bytes of a frame beside its content, and of each segment of the stream.
const FRAME_AROUND: usize = 5;
const SEGMENT_AROUND: usize = 18;
const SEGMENT_BYTES: usize = 65_519;

struct End {
    session: Session,
    identity: PeerIdentity,
    compression: bool,
    /// What the other has sent and this has not shown yet.
    due: VecDeque<Bytes>,
    /// Bytes on their way here.
    pipe: BytesMut,
}

pub(super) fn run(draw: &mut Draw, seed: u64) -> Kept {
    if seed % 8 == 3 {
        return crowd(draw);
    }
    let mut ends = meet(draw)?;
    let spoilt = seed % 4 == 1;
    for _ in 0..STEPS {
        let at = draw.index(2);
        match draw.index(8) {
            0..3 => send(draw, &mut ends, at)?,
            3 if draw.chance(100) => ends[at].session.renew_key().map_err(|error| error.to_string())?,
            _ => carry(draw, &mut ends, at)?,
        }
    }
    if spoilt {
        return spoil(draw, ends);
    }
    for at in [0, 1, 0, 1] {
        flush(&mut ends, at)?;
        while !ends[at].pipe.is_empty() {
            carry(draw, &mut ends, at)?;
        }
    }
    let lost = ends.iter().map(|end| end.due.len()).sum::<usize>();
    hold(lost == 0, || format!("{lost} frames did not arrive"))?;
    let unfinished = ends.iter().any(|end| end.session.unfinished_segment().is_some());
    hold(!unfinished, || "between two segments one is said to be unfinished".to_owned())
}

fn end(draw: &mut Draw, role: Role, keys: KeyRing, cluster: &str) -> End {
    let node_key = node_key(draw);
    let identity = PeerIdentity {
        public: node_key.public(),
        boot: Boot([u8::try_from(draw.index(200)).unwrap_or(0); 16]),
        cluster: ClusterId([3; 16]),
        empty: draw.chance(500),
        wire: 1,
    };
    let compression = draw.chance(500);
    let config = Config { keys, cluster: cluster.to_owned(), identity: identity.clone(), node_key, compression };
    let session = Session::new(role, config, draw.bytes());
    End { session, identity, compression, due: VecDeque::new(), pipe: BytesMut::new() }
}

/// Two shake hands: with one key of several, or in vain.
fn meet(draw: &mut Draw) -> Result<[End; 2], String> {
    let other_key = draw.chance(200);
    let other_name = !other_key && draw.chance(200);
    let (ours, theirs) = (cluster_key(0), cluster_key(1));
    let keys: KeyRing = ours.clone().into();
    let both = KeyRing::new(theirs.clone(), [ours.clone()]);
    let first = end(draw, Role::Initiator, keys.clone(), "knot");
    let name = if other_name { "tonk" } else { "knot" };
    let mut second = end(draw, Role::Responder, if other_key { theirs.into() } else { both }, name);
    hold(second.session.poll_transmit().is_none(), || "who was called speaks first".to_owned())?;
    let early = second.session.send_frame(b"early");
    hold(early == Err(SendError::NotEstablished), || "a frame was taken before the handshake".to_owned())?;
    let mut ends = [first, second];
    if other_key || other_name {
        flush(&mut ends, 1)?;
        let hello = std::mem::take(&mut ends[1].pipe);
        let refused = ends[1].session.handle_bytes(&hello);
        let is_due = match refused {
            Err(SessionError::WrongKey { .. }) => other_key,
            Err(SessionError::OtherCluster) => other_name,
            _ => false,
        };
        hold(is_due, || format!("a hello of another cluster: {refused:?}"))?;
        hold(ends[1].session.poll_transmit().is_none(), || "it was answered".to_owned())?;
        return meet(draw);
    }
    for _ in 0..3 {
        for at in [1, 0] {
            flush(&mut ends, at)?;
            // Byte by byte, as a slow network may.
            while !ends[at].pipe.is_empty() {
                let length = 1 + draw.index(ends[at].pipe.len().min(40));
                let bytes = ends[at].pipe.split_to(length);
                ends[at].session.handle_bytes(&bytes).map_err(|error| error.to_string())?;
            }
        }
    }
    for at in [0, 1] {
        let identity = ends[1 - at].identity.clone();
        let event = ends[at].session.poll_event();
        hold(event == Some(SessionEvent::Established(identity.clone())), || format!("it met {event:?}"))?;
        let session = &ends[at].session;
        hold(session.peer() == Some(&identity) && session.is_established(), || "it forgot whom it met".to_owned())?;
        hold(session.key() == Some(ours.id()), || "they agree on no key".to_owned())?;
    }
    Ok(ends)
}

/// What this end wants to send to the other is on its way.
fn flush(ends: &mut [End; 2], to: usize) -> Kept {
    let from = 1 - to;
    let pending = ends[from].session.pending_transmit_bytes();
    let bytes = ends[from].session.poll_transmit().unwrap_or_default();
    hold(bytes.len().abs_diff(pending) <= SEGMENT_AROUND, || {
        format!("{pending} bytes were said to wait, and {} did", bytes.len())
    })?;
    hold(ends[from].session.pending_transmit_bytes() == 0, || "something waits that was sent".to_owned())?;
    ends[to].pipe.extend_from_slice(&bytes);
    Ok(())
}

fn frame(draw: &mut Draw) -> Bytes {
    let lengths = [0, 1, 20, 511, 512, 600, 5_000, SEGMENT_BYTES - FRAME_AROUND, SEGMENT_BYTES, FRAME_BYTES_MAX];
    let rare = if draw.chance(60) { lengths.len() } else { 7 };
    let length = lengths[draw.index(rare)];
    if draw.chance(500) { vec![b'a'; length].into() } else { noise(draw, length).into() }
}

/// One end sends a frame, and its bytes are no more than it takes.
fn send(draw: &mut Draw, ends: &mut [End; 2], from: usize) -> Kept {
    let to = 1 - from;
    flush(ends, to)?;
    let frame = frame(draw);
    let before = ends[to].pipe.len();
    let folds = ends[from].compression && frame.len() >= 512 && frame.iter().all(|byte| *byte == b'a');
    let long = ends[from].session.send_frame(&vec![0; FRAME_BYTES_MAX + 1]);
    hold(matches!(long, Err(SendError::FrameTooLong { .. })), || "a frame that is too long was taken".to_owned())?;
    ends[from].session.send_frame(&frame).map_err(|error| error.to_string())?;
    flush(ends, to)?;
    let bytes = ends[to].pipe.len() - before;
    let most = frame.len() + FRAME_AROUND + (frame.len() / SEGMENT_BYTES + 2) * SEGMENT_AROUND;
    let most = if folds { frame.len() / 4 + 200 } else { most };
    hold(bytes > 0 && bytes <= most, || format!("a frame of {} bytes takes {bytes}", frame.len()))?;
    let sent = ends[to].pipe.get(before..).unwrap_or_default();
    hold(!shows(sent, &frame), || "a frame can be read on the way".to_owned())?;
    ends[to].due.push_back(frame);
    Ok(())
}

/// Some bytes arrive: what they make whole is what was sent, in its order.
fn carry(draw: &mut Draw, ends: &mut [End; 2], to: usize) -> Kept {
    let end = &mut ends[to];
    let most = if draw.chance(300) { 30 } else { 100_000 };
    let length = (1 + draw.index(most)).min(end.pipe.len());
    let bytes = end.pipe.split_to(length);
    end.session.handle_bytes(&bytes).map_err(|error| error.to_string())?;
    let waits = end.session.unfinished_segment().is_some();
    hold(!waits || !end.pipe.is_empty(), || "a segment is said to be unfinished that has arrived".to_owned())?;
    while let Some(event) = end.session.poll_event() {
        let due = end.due.pop_front().map(SessionEvent::Frame);
        hold(Some(&event) == due.as_ref(), || "another frame arrived than was sent".to_owned())?;
    }
    Ok(())
}

/// Bytes are altered, left out, repeated or moved: what arrived before stands, nothing else does, and the end is silent.
fn spoil(draw: &mut Draw, mut ends: [End; 2]) -> Kept {
    for _ in 0..4 {
        send(draw, &mut ends, 0)?;
    }
    let mut bytes = ends[1].pipe.split();
    let at = draw.index(bytes.len());
    match draw.index(3) {
        0 => bytes[at] ^= 1 << draw.index(8),
        1 => drop(bytes.split_off(at).split_to(1)),
        _ => {
            let tail = bytes.split_off(at);
            bytes.extend_from_slice(&[7]);
            bytes.extend_from_slice(&tail);
        }
    }
    // Enough for any length that a segment may be said to have.
    bytes.extend_from_slice(&noise(draw, 70_000));
    let handled = ends[1].session.handle_bytes(&bytes);
    let blamed = matches!(handled, Err(SessionError::PeerMisbehaved(_)));
    hold(blamed, || format!("bytes that nobody sent: {handled:?}"))?;
    while let Some(event) = ends[1].session.poll_event() {
        let due = ends[1].due.pop_front().map(SessionEvent::Frame);
        hold(Some(&event) == due.as_ref(), || "what was altered arrived".to_owned())?;
    }
    let session = &mut ends[1].session;
    let silent = session.poll_transmit().is_none() && session.pending_transmit_bytes() == 0;
    hold(silent && !session.is_established() && session.key().is_none(), || "it goes on".to_owned())?;
    hold(session.handle_bytes(&[1]) == Err(SessionError::Failed), || "it takes more".to_owned())?;
    hold(session.send_frame(b"more") == Err(SendError::NotEstablished), || "it sends more".to_owned())
}

/// Neither what waits to be sent nor what waits to be read grows without bound.
fn crowd(draw: &mut Draw) -> Kept {
    let mut ends = meet(draw)?;
    let frame = noise(draw, FRAME_BYTES_MAX / 2);
    let mut taken = 0;
    while ends[0].session.send_frame(&frame).is_ok() {
        taken += 1;
        hold(taken < 100, || "no end of frames is taken".to_owned())?;
    }
    hold(ends[0].session.send_frame(b"") == Err(SendError::Full), || "there is room again".to_owned())?;
    let waits = ends[0].session.pending_transmit_bytes();
    let least = TRANSMIT_BYTES_MAX - 2 * FRAME_BYTES_MAX;
    hold(waits <= TRANSMIT_BYTES_MAX && waits > least, || format!("{waits} bytes wait to be sent"))?;
    let mut read = 0;
    let mut empty = false;
    loop {
        flush(&mut ends, 1)?;
        let mut unread = 0;
        while !ends[1].pipe.is_empty() {
            let length = ends[1].pipe.len().min(60_000);
            let bytes = ends[1].pipe.split_to(length);
            match ends[1].session.handle_bytes(&bytes) {
                Ok(()) => unread += length,
                Err(SessionError::Unread) => {
                    hold(unread >= UNREAD_BYTES_MAX - FRAME_BYTES_MAX, || format!("{unread} bytes are too many"))?;
                    let mut rest = bytes;
                    rest.extend_from_slice(&ends[1].pipe);
                    ends[1].pipe = rest;
                    break;
                }
                Err(error) => return Err(error.to_string()),
            }
            hold(unread <= UNREAD_BYTES_MAX + 2 * FRAME_BYTES_MAX, || "no end of frames waits".to_owned())?;
        }
        if empty && ends[1].pipe.is_empty() {
            while ends[1].session.poll_event().is_some() {
                read += 1;
            }
            break;
        }
        if ends[1].pipe.is_empty() || unread > 0 {
            // Half of them are read only once all have come.
            if !ends[1].pipe.is_empty() {
                while ends[1].session.poll_event().is_some() {
                    read += 1;
                }
            } else {
                empty = true;
                let more = ends[0].session.send_frame(&frame);
                taken += usize::from(more.is_ok());
            }
        }
    }
    hold(read == taken, || format!("{taken} frames were sent, and {read} arrived"))
}
