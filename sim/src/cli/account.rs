//! What became of writes, in lines.

use std::iter::once;

use crate::checker::Account;
use crate::histogram::{Class, Histogram};
use crate::scenario::words::millis;

/// Of the bar of the greatest class.
const BAR_CHARACTERS: u64 = 40;

/// The lines that both `run` and `replay` end with. Their names are as wide as `width`.
pub(super) fn lines(account: &Account, width: usize) -> Vec<String> {
    let Account { acknowledged, kept, lost, never_read, excused, stale, stalest_us, everywhere } = account;
    let line = |name: &str, text: String| format!("{name:<width$} {text}");
    let mut lines = vec![line(
        "writes",
        format!(
            "{acknowledged} acknowledged: {kept} kept, {lost} lost, {never_read} never read, {excused} on a disk that \
             was lost"
        ),
    )];
    if *stale > 0 {
        let longest = micros(*stalest_us);
        lines.push(line("stale", format!("{stale} of them missing from an earlier read, for {longest} at most")));
    }
    let times = [50, 95, 100].map(|percent| everywhere.percentile_us(percent).map(micros));
    if let [Some(half), Some(most), Some(all)] = times {
        let text = format!("on all servers half within {half}, 95 % within {most}, all within {all}");
        lines.extend(once(line("spread", text)).chain(bars(everywhere).map(|bar| line("", bar))));
    }
    lines
}

/// A bar for each class from the first that is not empty to the last.
fn bars(times: &Histogram) -> impl Iterator<Item = String> {
    let classes: Vec<_> = times.classes().collect();
    let greatest = classes.iter().map(|class| class.count).max().unwrap_or_default().max(1);
    let full = |at: &usize| classes[*at].count > 0;
    let first = (0..classes.len()).find(full).unwrap_or_default();
    let last = (0..classes.len()).rfind(full).unwrap_or_default();
    let bar = move |class: &Class| {
        let ends = class.up_to_us.map_or("more".to_owned(), |end| format!("to {}", micros(end)));
        let length = (class.count * BAR_CHARACTERS).div_ceil(greatest);
        let bar = "#".repeat(usize::try_from(length).unwrap_or_default());
        format!("{ends:>10} {:>8} {bar}", class.count).trim_end().to_owned()
    };
    classes[first..=last].iter().map(bar).collect::<Vec<String>>().into_iter()
}

fn micros(micros: u64) -> String {
    millis(micros.div_ceil(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_say_what_became_of_writes() {
        let mut account = Account { acknowledged: 3, kept: 3, stale: 1, stalest_us: 1_250_000, ..Account::default() };
        for micros in [900, 1_000, 4_000] {
            account.everywhere.add(micros);
        }
        let lines = lines(&account, 10);
        assert_eq!(
            lines,
            [
                "writes     3 acknowledged: 3 kept, 0 lost, 0 never read, 0 on a disk that was lost",
                "stale      1 of them missing from an earlier read, for 1.25 s at most",
                "spread     on all servers half within 1 ms, 95 % within 4 ms, all within 4 ms",
                "              to 1 ms        2 ########################################",
                "              to 2 ms        0",
                "              to 5 ms        1 ####################",
            ]
        );
        assert_eq!(super::lines(&Account::default(), 10).len(), 1);
    }
}
