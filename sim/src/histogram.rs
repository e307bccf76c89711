//! How many of many times were how long.

use serde::{Serialize, Serializer};

/// Upper ends of the classes, in microseconds; what is longer comes last.
const ENDS_US: [u64; 21] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
];

/// Times by classes of their length: up to 1, 2, 5, 10 ms and so on, up to 5,000 s, and more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; ENDS_US.len() + 1],
    max_us: u64,
}

/// One class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Class {
    /// No time in it is longer, in microseconds; none in the last class.
    pub up_to_us: Option<u64>,
    /// How many there are.
    pub count: u64,
}

impl Histogram {
    pub(crate) fn add(&mut self, micros: u64) {
        let class = ENDS_US.partition_point(|end| *end < micros);
        self.counts[class] += 1;
        self.max_us = self.max_us.max(micros);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.max_us = self.max_us.max(other.max_us);
    }

    /// How many times there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The end of the class that holds the time which `percent` of a hundred do not exceed, in microseconds, or the
    /// longest time where that is less; none of nothing.
    #[must_use]
    pub fn percentile_us(&self, percent: u64) -> Option<u64> {
        let rank = (self.count() * percent).div_ceil(100).max(1);
        let mut below = 0;
        let holds = self.classes().find(|class| {
            below += class.count;
            below >= rank
        })?;
        Some(holds.up_to_us.map_or(self.max_us, |end| end.min(self.max_us)))
    }

    /// All classes, the shortest times first.
    pub fn classes(&self) -> impl Iterator<Item = Class> + '_ {
        let ends = ENDS_US.into_iter().map(Some).chain([None]);
        ends.zip(self.counts).map(|(up_to_us, count)| Class { up_to_us, count })
    }
}

/// As the list of the classes that are not empty.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.classes().filter(|class| class.count > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        micros.iter().for_each(|micros| histogram.add(*micros));
        histogram
    }

    #[test]
    fn a_class_holds_its_upper_end() {
        let histogram = of(&[0, 1_000, 1_001, 9_000_000_000]);
        let full: Vec<Class> = histogram.classes().filter(|class| class.count > 0).collect();
        let class = |up_to_us, count| Class { up_to_us, count };
        assert_eq!(full, [class(Some(1_000), 2), class(Some(2_000), 1), class(None, 1)]);
        assert_eq!((histogram.count(), histogram.percentile_us(100)), (4, Some(9_000_000_000)));
    }

    #[test]
    fn percentiles_are_ends_of_classes_and_no_more_than_the_longest() {
        let histogram = of(&[700, 700, 700, 1_200]);
        assert_eq!([50, 75, 100].map(|percent| histogram.percentile_us(percent)), [1_000, 1_000, 1_200].map(Some));
        assert_eq!(Histogram::default().percentile_us(50), None);
    }

    #[test]
    fn two_make_one() {
        let mut one = of(&[500, 3_000]);
        one.merge(&of(&[4_000_000]));
        assert_eq!(one, of(&[500, 3_000, 4_000_000]));
    }
}
