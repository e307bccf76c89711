#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(case) = knot_fuzz::Case::of(input) {
        case.run();
    }
});
