//! What sessions cost: handshakes a second, bytes a second through a stream, datagrams a second, each beside the part of
//! it that no implementation of these protocols could leave out, measured in the same run.
//!
//! `cargo bench -p knot-engine --bench session`. Nothing is asserted.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(clippy::print_stdout, reason = "a table on stdout is the product")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, XChaCha20Poly1305};
use knot_engine::seal::{ClusterKey, Datagrams};
use knot_engine::session::{Config, Role, Session};
use knot_engine::{Boot, ClusterId, NodeId, NodeKey, PeerIdentity};
use x25519_dalek::{PublicKey, StaticSecret};

const KEY: &str = "NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl";
/// How long one go lasts; a go of what it is compared with follows each.
const GO: Duration = Duration::from_millis(40);
/// Of so many goes the fastest counts: the others were disturbed.
const GOES: usize = 25;
/// A push of one change, a page, a window of a repair, the longest frame.
const FRAMES: [usize; 4] = [500, 16 << 10, 256 << 10, 1 << 20];
/// Plain bytes of a full segment, in which a stream is sealed.
const SEGMENT_BYTES: usize = 65_535 - 16;
/// A probe with its roots.
const DATAGRAM_BYTES: usize = 200;
/// Times that the two sides of a handshake agree on a secret, three each.
const AGREEMENTS: usize = 6;
/// Ephemeral keys that they make for it.
const EPHEMERALS: u8 = 2;

fn main() -> ExitCode {
    // `cargo test --all-targets` runs benches too, without this flag: it wants to know that they start, no more.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    println!(
        "{:<44} {:>12}  {:<36} {:>12}  share of it",
        "both ends, on one core", "a second", "of these alone", "a second"
    );
    handshakes();
    for frame_bytes in FRAMES {
        bytes(frame_bytes);
    }
    datagrams();
    ExitCode::SUCCESS
}

/// How often a second each happens, in turns, so that what disturbs one disturbs the other.
fn rates(mut ours: impl FnMut(), mut floor: impl FnMut()) -> (f64, f64) {
    let go = |operation: &mut dyn FnMut()| {
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < GO {
            operation();
            count += 1;
        }
        f64::from(count) / start.elapsed().as_secs_f64()
    };
    let each = |_| (go(&mut ours), go(&mut floor));
    (0..GOES).map(each).fold((0.0, 0.0), |best: (f64, f64), rate| (best.0.max(rate.0), best.1.max(rate.1)))
}

fn row(what: &str, rate: f64, floor: &str, floor_rate: f64, unit: &str) {
    let rates = (format!("{rate:.0}{unit}"), format!("{floor_rate:.0}{unit}"));
    println!("{what:<44} {:>12}  {floor:<36} {:>12}  {:.0} %", rates.0, rates.1, 100.0 * rate / floor_rate);
}

fn keep<T>(result: T) {
    let _forgotten = black_box(result);
}

fn handshakes() {
    let secret = |number| StaticSecret::from([number; 32]);
    let (near, far) = (secret(1), PublicKey::from(&secret(2)));
    let curve = || {
        (0..EPHEMERALS).for_each(|number| keep(PublicKey::from(&secret(number))));
        (0..AGREEMENTS).for_each(|_| keep(near.diffie_hellman(black_box(&far))));
    };
    let (rate, floor) = rates(|| keep(established()), curve);
    row("sessions established", rate, "their work on the curve", floor, "");
}

fn bytes(frame_bytes: usize) {
    let (mut near, mut far) = established();
    let frame = noise(frame_bytes);
    let through = || {
        near.send_frame(&frame).expect("it fits");
        carry(&mut near, &mut far);
        keep(far.poll_event());
    };
    let cipher = ChaCha20Poly1305::new(&[9; 32].into());
    let mut plain = frame.clone();
    let alone = || {
        for segment in plain.chunks_mut(SEGMENT_BYTES) {
            let sealed = cipher.encrypt_inout_detached(&[0; 12].into(), &[], (&mut *segment).into());
            let tag = sealed.expect("short enough");
            keep(cipher.decrypt_inout_detached(&[0; 12].into(), &[], segment.into(), &tag));
        }
    };
    let (rate, floor) = rates(through, alone);
    let mb = |rate: f64| rate * frame_bytes as f64 / 1e6;
    let what = format!("frames of {frame_bytes} B");
    row(&what, mb(rate), "ChaCha20-Poly1305, both ways", mb(floor), " MB");
}

fn datagrams() {
    let key = || Some(ClusterKey::new(KEY).expect("a valid key").into());
    let [(near, near_boot), (far, far_boot)] = [1, 2].map(|number| (NodeId([number; 16]), Boot([number; 16])));
    let mut sender = Datagrams::new(key(), near, near_boot);
    let mut receiver = Datagrams::new(key(), far, far_boot);
    let body = [7; DATAGRAM_BYTES];
    let through = || {
        let datagram = sender.seal(far, far_boot, &body).expect("it fits");
        keep(receiver.open(&datagram, |_| Some(near_boot)).expect("an honest peer"));
    };
    let cipher = XChaCha20Poly1305::new(&[9; 32].into());
    let mut plain = body;
    let alone = || {
        let sealed = cipher.encrypt_inout_detached(&[0; 24].into(), &[], plain.as_mut_slice().into());
        let tag = sealed.expect("short enough");
        keep(cipher.decrypt_inout_detached(&[0; 24].into(), &[], plain.as_mut_slice().into(), &tag));
    };
    let (rate, floor) = rates(through, alone);
    row(
        &format!("datagrams of {DATAGRAM_BYTES} B sealed and opened"),
        rate,
        "XChaCha20-Poly1305, both ways",
        floor,
        "",
    );
}

/// Two ends that have shaken hands.
fn established() -> (Session, Session) {
    let (mut near, mut far) = (end(Role::Initiator, 1), end(Role::Responder, 2));
    while !(near.is_established() && far.is_established()) {
        carry(&mut near, &mut far);
        carry(&mut far, &mut near);
    }
    while near.poll_event().is_some() || far.poll_event().is_some() {}
    (near, far)
}

fn carry(from: &mut Session, to: &mut Session) {
    while let Some(bytes) = from.poll_transmit() {
        to.handle_bytes(&bytes).expect("an honest peer");
    }
}

fn end(role: Role, secret: u8) -> Session {
    let node_key = NodeKey::from_bytes([secret; 32]);
    let identity = PeerIdentity {
        public: node_key.public(),
        boot: Boot([secret; 16]),
        cluster: ClusterId([3; 16]),
        empty: false,
        wire: 1,
    };
    let keys = ClusterKey::new(KEY).expect("a valid key").into();
    let config = Config { keys, cluster: "bench".to_owned(), identity, node_key, compression: false };
    Session::new(role, config, [secret; 32])
}

/// Bytes that do not shrink.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}
