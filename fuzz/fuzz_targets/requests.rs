#![no_main]

use diptych_fuzz::{requests, sow};

libfuzzer_sys::fuzz_target!(init: sow("requests"), |data: &[u8]| requests(data));
