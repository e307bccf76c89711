//! Which valid word a misspelt one was meant to be.

/// The candidate that takes the fewest edits to reach, where that is few enough to be a slip of the hand.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let close_enough = 1 + word.len() / 4;
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .min()
        .filter(|(edits, _)| *edits <= close_enough)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_nonsense_finds_none() {
        let keys = ["advertise_addr", "bind_addr", "key", "peers", "compression"];
        assert_eq!(nearest("adverise_addr", keys), Some("advertise_addr"));
        assert_eq!(nearest("peres", keys), Some("peers"));
        assert_eq!(nearest("bind-addr", keys), Some("bind_addr"));
        assert_eq!(nearest("colour", keys), None);
    }
}
