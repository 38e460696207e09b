#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    equant_tests::fuzz::package_input(bytes);
});
