//! Seeds of fuzz targets as plain tests; included by the crates that have a `fuzz` directory.

use std::path::Path;

/// Damaged versions of a seed: cut short, bits turned, bytes doubled; the same ones every time.
fn damaged(seed: &[u8]) -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(seed.len() as u64);
    let mut all = vec![seed.to_vec()];
    for _ in 0..60 {
        let mut bytes = seed.to_vec();
        for _ in 0..random.usize(1..4) {
            if bytes.is_empty() {
                break;
            }
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= 1 << random.u8(..8),
                2 => bytes.insert(at, bytes[at]),
                _ => drop(bytes.remove(at)),
            }
        }
        all.push(bytes);
    }
    all
}

/// Runs a target's check over the seeds of the crate that includes this file.
pub fn run(target: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        damaged(&seed).iter().for_each(|bytes| check(bytes));
        seeds += 1;
    }
    assert!(seeds > 0, "{target} has no seeds");
}
