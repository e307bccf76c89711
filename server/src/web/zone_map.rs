//! A drawing of how far other zones are from this one, by round trips that this server has measured.

use std::f64::consts::TAU;
use std::time::Duration;

use super::moment::milliseconds;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 260.0;
/// Room above and below a zone's middle, for its circle and its name.
const ABOVE: f64 = 28.0;
const BELOW: f64 = 46.0;
/// How far a zone is drawn at least, as a part of what there is room for.
const NEAREST: f64 = 0.45;
/// A round trip that is drawn as near as can be, and one that is drawn as far.
const SHORT_MS: f64 = 0.2;
const LONG_MS: f64 = 300.0;

/// A zone and how it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    pub(super) name: String,
    pub(super) servers: usize,
    pub(super) alive: usize,
    /// The shortest round trip to a server in it.
    pub(super) rtt: Option<Duration>,
}

/// A zone as it is drawn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spot {
    pub(super) zone: Zone,
    pub(super) x: String,
    pub(super) y: String,
    /// Where its round trip is written: half way.
    pub(super) label_x: String,
    pub(super) label_y: String,
    pub(super) rtt: Option<String>,
    pub(super) is_down: bool,
}

/// The drawing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Map {
    pub(super) centre: Zone,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) spots: Vec<Spot>,
    pub(super) view: String,
}

impl Map {
    /// This server's zone in the middle, the others around it in order of their names.
    pub(super) fn draw(centre: Zone, others: Vec<Zone>) -> Self {
        let count = u32::try_from(others.len().max(1)).unwrap_or(u32::MAX);
        let spot = |(index, zone): (u32, Zone)| {
            // The first lies to the right.
            let angle = TAU * f64::from(index) / f64::from(count);
            let far = zone.rtt.map_or(1.0, distance);
            let at = |part: f64| {
                let x = WIDTH / 2.0 + angle.cos() * far * part * (WIDTH / 2.0 - 70.0);
                let y = HEIGHT / 2.0 + angle.sin() * far * part * (HEIGHT / 2.0 - 45.0);
                (format!("{x:.1}"), format!("{y:.1}"))
            };
            let ((x, y), (label_x, label_y)) = (at(1.0), at(0.5));
            let rtt = zone.rtt.map(milliseconds);
            Spot { is_down: zone.alive == 0, zone, x, y, label_x, label_y, rtt }
        };
        let spots: Vec<Spot> = (0..).zip(others).map(spot).collect();
        let (x, y) = (format!("{:.1}", WIDTH / 2.0), format!("{:.1}", HEIGHT / 2.0));
        // No more height than is drawn on.
        let heights = || spots.iter().filter_map(|spot| spot.y.parse::<f64>().ok());
        let top = heights().fold(HEIGHT / 2.0, f64::min) - ABOVE;
        let bottom = heights().fold(HEIGHT / 2.0, f64::max) + BELOW;
        Self { centre, x, y, view: format!("0 {top:.0} {WIDTH} {:.0}", bottom - top), spots }
    }
}

/// How far a round trip is drawn, as a part of what there is room for: as its logarithm.
fn distance(rtt: Duration) -> f64 {
    let ms = (rtt.as_secs_f64() * 1_000.0).clamp(SHORT_MS, LONG_MS);
    NEAREST + (1.0 - NEAREST) * (ms / SHORT_MS).ln() / (LONG_MS / SHORT_MS).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, rtt_ms: Option<u64>) -> Zone {
        Zone { name: name.to_owned(), servers: 1, alive: 1, rtt: rtt_ms.map(Duration::from_millis) }
    }

    #[test]
    fn a_longer_round_trip_is_drawn_farther_and_none_beyond_the_edge() {
        let far = |ms| distance(Duration::from_millis(ms));
        assert!(far(0) < far(1) && far(1) < far(20) && far(20) < far(200));
        assert!(far(0) >= NEAREST && far(60_000) <= 1.0);
    }

    #[test]
    fn every_zone_has_a_spot_of_its_own_inside_the_drawing() {
        let others: Vec<Zone> = (0..9).map(|at| zone(&format!("z{at}"), (at > 0).then_some(at * 40))).collect();
        let map = Map::draw(zone("here", None), others);
        let mut places: Vec<(String, String)> = map.spots.iter().map(|spot| (spot.x.clone(), spot.y.clone())).collect();
        for (x, y) in &places {
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{x} {y}");
        }
        places.dedup();
        assert_eq!(places.len(), 9);
        assert_eq!(map.spots[0].rtt, None);
        assert!(Map::draw(zone("here", None), Vec::new()).spots.is_empty());
    }
}
