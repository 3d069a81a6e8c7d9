#![no_main]

use diptych_fuzz::{bundle, sow};

libfuzzer_sys::fuzz_target!(init: sow("bundle"), |data: &[u8]| bundle(data));
