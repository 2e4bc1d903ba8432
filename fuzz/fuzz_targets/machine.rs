#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inception_init_fuzz::machine(data));
