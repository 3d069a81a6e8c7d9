#![no_main]

use diptych_fuzz::{page_token, sow};

libfuzzer_sys::fuzz_target!(init: sow("page_token"), |data: &[u8]| page_token(data));
