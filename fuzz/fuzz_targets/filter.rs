#![no_main]

use diptych_fuzz::{filter, sow};

libfuzzer_sys::fuzz_target!(init: sow("filter"), |data: &[u8]| filter(data));
