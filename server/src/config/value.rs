//! Values with a form of their own: durations.

use std::time::Duration;

/// Reads `72h`, `1h30m`, `500ms`, `3d`: numbers, each followed by `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// When a number has no unit, the unit is unknown, or the sum does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration such as \"72h\", \"1h30m\" or \"30s\"");
    let mut total = Duration::ZERO;
    let mut rest = text;
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let unit_bytes = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(unit_bytes);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let part = number.checked_mul(unit_ms).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(wrong)?;
        if tail.is_empty() {
            return Ok(total);
        }
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        let seconds = |text| parse_duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("72h"), Ok(72 * 3600));
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert_eq!(seconds("3d"), Ok(3 * 86400));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "72", "h", "1x", "-1h", "1h30", "1.5h", "99999999999999999999h", "18446744073709551615d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong} was read");
        }
    }
}
