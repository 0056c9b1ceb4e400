//! What all of these programs are: a target of the library under libFuzzer.

/// The program of the target of this name. Half of its inputs are made as the target makes them, half
/// by libFuzzer, which knows what the last ones compared.
macro_rules! fuzz {
    ($name:ident) => {
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (mosaik_fuzz::$name::TARGET.check)(bytes));

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max: usize, seed: u32| {
            if seed & 1 == 0 {
                return libfuzzer_sys::fuzzer_mutate(data, size, max);
            }
            let mut bytes = data[..size].to_vec();
            let mut chance = mosaik_fuzz::chance(seed.into());
            (mosaik_fuzz::$name::TARGET.mutate)(&mut bytes, &mut chance);
            bytes.truncate(max);
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        });
    };
}
