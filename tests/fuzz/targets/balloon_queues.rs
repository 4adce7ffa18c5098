#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::balloon_queues::run(data));
