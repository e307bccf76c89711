#![no_main]

use knot_fuzz::body::TARGET;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: knot_fuzz::prepare(), |input: &[u8]| knot_fuzz::fuzz(&TARGET, input));
