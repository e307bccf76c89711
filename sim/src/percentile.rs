//! Percentiles, by nearest rank.

/// The least of `sorted` that `percent` of a hundred do not exceed; none of nothing.
pub(crate) fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest_from_above() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!([50, 95, 99, 100].map(|percent| percentile(&hundred, percent)), [50, 95, 99, 100].map(Some));
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile::<u64>(&[], 50), None);
    }
}
