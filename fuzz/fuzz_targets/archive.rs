#![no_main]

use diptych_fuzz::{archive, sow};

libfuzzer_sys::fuzz_target!(init: sow("archive"), |data: &[u8]| archive(data));
