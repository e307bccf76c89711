//! What a router reads of a packet, and the answer that ends a stream.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

/// A packet of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    /// The segment of a stream that it is; none for datagrams and all else.
    pub(super) segment: Option<Segment>,
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
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let sliced = SlicedPacket::from_ip(bytes).ok()?;
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else { return None };
        let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
        let segment = match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => Some(Segment {
                source: SocketAddrV4::new(from, tcp.source_port()),
                destination: SocketAddrV4::new(to, tcp.destination_port()),
                sequence: tcp.sequence_number(),
                acknowledgment: tcp.acknowledgment_number(),
                opens: tcp.syn() && !tcp.ack(),
            }),
            Some(
                TransportSlice::Udp(_)
                | TransportSlice::Icmpv4(_)
                | TransportSlice::Icmpv6(_)
                | TransportSlice::Igmp(_),
            )
            | None => None,
        };
        Some(Self { from, to, segment })
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
    const HOPS: u8 = 64;
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

    fn segment() -> Packet {
        let packet = PacketBuilder::ipv4(ONE.ip().octets(), OTHER.ip().octets(), 64)
            .tcp(ONE.port(), OTHER.port(), 1_000, 512)
            .ack(77);
        let mut bytes = Vec::new();
        packet.write(&mut bytes, b"hello").unwrap();
        Packet::read(&bytes).unwrap()
    }

    #[test]
    fn a_segment_says_whose_it_is() {
        let packet = segment();
        assert_eq!((packet.from, packet.to), (*ONE.ip(), *OTHER.ip()));
        assert_eq!(packet.segment.map(|segment| (segment.flow(), segment.opens)), Some(([ONE, OTHER], false)));
    }

    #[test]
    fn both_ends_take_a_reset_for_the_others() {
        let [to_other, to_one] = segment().segment.unwrap().resets().map(|bytes| {
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no segment") };
            assert!(tcp.rst());
            let segment = Packet::read(&bytes).unwrap().segment.unwrap();
            (segment.source, segment.destination, segment.sequence)
        });
        assert_eq!(to_other, (ONE, OTHER, 1_000), "what the receiver expects next");
        assert_eq!(to_one, (OTHER, ONE, 77), "what the sender expects next");
    }

    #[test]
    fn rubbish_is_no_packet() {
        assert_eq!(Packet::read(&[]), None);
        assert_eq!(Packet::read(&[0x45; 12]), None);
        assert_eq!(Packet::read(&[0x60; 60]), None, "IPv6");
    }
}
