#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::agent_frames::run(data));
