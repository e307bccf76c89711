//! What a router reads of a packet, and the answer that ends a stream.

use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

/// Routers on the way of what is made here, as most systems have it.
const HOPS: u8 = 64;

/// A packet of IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) carries: Carries,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    Segment(Segment),
    Datagram(Datagram),
    /// Anything else, such as what says that a port is closed.
    Other,
}

/// A datagram of UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    source: SocketAddrV4,
    destination: SocketAddrV4,
    pub(super) payload: Bytes,
}

/// A segment of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    source: SocketAddrV4,
    destination: SocketAddrV4,
    sequence: u32,
    acknowledgment: u32,
    pub(super) opens: bool,
}

/// A stream, whichever end speaks: the lesser end comes first.
pub(super) type Flow = [SocketAddrV4; 2];

impl Packet {
    /// Reads a packet; none where it is not one of IPv4.
    pub(super) fn read(bytes: &Bytes) -> Option<Self> {
        let sliced = SlicedPacket::from_ip(bytes).ok()?;
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else { return None };
        let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
        let carries = match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => Carries::Segment(Segment {
                source: SocketAddrV4::new(from, tcp.source_port()),
                destination: SocketAddrV4::new(to, tcp.destination_port()),
                sequence: tcp.sequence_number(),
                acknowledgment: tcp.acknowledgment_number(),
                opens: tcp.syn() && !tcp.ack(),
            }),
            Some(TransportSlice::Udp(udp)) => Carries::Datagram(Datagram {
                source: SocketAddrV4::new(from, udp.source_port()),
                destination: SocketAddrV4::new(to, udp.destination_port()),
                payload: bytes.slice_ref(udp.payload()),
            }),
            Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => {
                Carries::Other
            }
        };
        Some(Self { from, to, carries })
    }
}

impl Datagram {
    /// A packet that carries `payload` in the place of what this datagram does. Its checksum is right, so a kernel lets
    /// it through: whether it is what was sent is for its receiver to tell.
    pub(super) fn with(&self, payload: &[u8]) -> Vec<u8> {
        let packet = PacketBuilder::ipv4(self.source.ip().octets(), self.destination.ip().octets(), HOPS)
            .udp(self.source.port(), self.destination.port());
        let mut bytes = Vec::with_capacity(packet.size(payload.len()));
        packet.write(&mut bytes, payload).expect("as long as one that was sent");
        bytes
    }
}

impl Segment {
    pub(super) fn flow(&self) -> Flow {
        let mut ends = [self.source, self.destination];
        ends.sort_unstable();
        ends
    }

    /// What tells the receiver and the sender of this segment that the stream is over, as if each had heard it from the
    /// other.
    pub(super) fn resets(&self) -> [Vec<u8>; 2] {
        [reset(self.source, self.destination, self.sequence), reset(self.destination, self.source, self.acknowledgment)]
    }
}

fn reset(from: SocketAddrV4, to: SocketAddrV4, sequence: u32) -> Vec<u8> {
    let packet =
        PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), HOPS).tcp(from.port(), to.port(), sequence, 0).rst();
    let mut bytes = Vec::with_capacity(packet.size(0));
    packet.write(&mut bytes, &[]).expect("a header without data is never too long");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 78, 0, 1), 40_000);
    const OTHER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 78, 0, 2), 3_100);

    fn packet() -> Packet {
        let packet = PacketBuilder::ipv4(ONE.ip().octets(), OTHER.ip().octets(), 64)
            .tcp(ONE.port(), OTHER.port(), 1_000, 512)
            .ack(77);
        let mut bytes = Vec::new();
        packet.write(&mut bytes, b"hello").unwrap();
        Packet::read(&bytes.into()).unwrap()
    }

    fn segment(packet: Packet) -> Segment {
        let Carries::Segment(segment) = packet.carries else { panic!("no segment") };
        segment
    }

    #[test]
    fn a_segment_says_whose_it_is() {
        let packet = packet();
        assert_eq!((packet.from, packet.to), (*ONE.ip(), *OTHER.ip()));
        let segment = segment(packet);
        assert_eq!((segment.flow(), segment.opens), ([ONE, OTHER], false));
    }

    #[test]
    fn both_ends_take_a_reset_for_the_others() {
        let [to_other, to_one] = segment(packet()).resets().map(|bytes| {
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no segment") };
            assert!(tcp.rst());
            let segment = segment(Packet::read(&Bytes::copy_from_slice(&bytes)).unwrap());
            (segment.source, segment.destination, segment.sequence)
        });
        assert_eq!(to_other, (ONE, OTHER, 1_000), "what the receiver expects next");
        assert_eq!(to_one, (OTHER, ONE, 77), "what the sender expects next");
    }

    #[test]
    fn a_datagram_that_was_changed_has_a_checksum_that_holds() {
        let mut bytes = Vec::new();
        let packet = PacketBuilder::ipv4(ONE.ip().octets(), OTHER.ip().octets(), 64).udp(ONE.port(), OTHER.port());
        packet.write(&mut bytes, b"sealed").unwrap();
        let read = |bytes: &[u8]| match Packet::read(&Bytes::copy_from_slice(bytes)).unwrap().carries {
            Carries::Datagram(datagram) => datagram,
            Carries::Segment(_) | Carries::Other => panic!("no datagram"),
        };
        let sent = read(&bytes);
        assert_eq!(&sent.payload[..], b"sealed");
        assert_eq!(sent.with(b"sealed"), bytes);
        let changed = sent.with(b"sealef");
        assert_ne!(changed, bytes);
        let sliced = SlicedPacket::from_ip(&changed).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (&sliced.net, &sliced.transport) else {
            panic!("no datagram")
        };
        let right = udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), b"sealef").unwrap();
        assert_eq!(udp.checksum(), right);
        assert_eq!(Datagram { payload: sent.payload.clone(), ..read(&changed) }, sent);
    }

    #[test]
    fn rubbish_is_no_packet() {
        for rubbish in [&[][..], &[0x45; 12], &[0x60; 60]] {
            assert_eq!(Packet::read(&Bytes::copy_from_slice(rubbish)), None, "{rubbish:?}");
        }
    }
}
