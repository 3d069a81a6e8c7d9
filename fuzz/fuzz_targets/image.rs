#![no_main]

use diptych_fuzz::{image, sow};

libfuzzer_sys::fuzz_target!(init: sow("image"), |data: &[u8]| image(data));
