//! Changes to good inputs: what random bytes would never reach, a good input with a few wrong bytes does.
//!
//! `corpus/TARGET/` beside the test holds the good inputs, and those that once found a fault. Each is tried as it is
//! first; then they are changed for as long as the target runs.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long each target runs: a moment, or as `EKIDEN_FUZZ_SECONDS` says.
pub(crate) fn seconds() -> Duration {
    let asked = std::env::var("EKIDEN_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(asked.unwrap_or(2))
}

/// One change: what, where, how long, and to what. Every number means something in every input.
pub(crate) type Change = (u8, u16, u8, u32);

/// Which good input, and what is changed in it.
pub(crate) type Recipe = (u16, Vec<Change>);

/// Numbers at which arithmetic goes wrong.
const EDGES: [u32; 12] = [0, 1, 3, 4, 15, 16, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, u32::MAX];

/// The inputs of `directory`, in the order of their names.
///
/// # Panics
/// If there are none: a corpus that is lost must be noticed.
pub(crate) fn corpus(directory: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<_> =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).collect();
    files.sort();
    let inputs: Vec<_> = files.iter().map(|path| fs::read(path).expect("a file of the corpus")).collect();
    assert!(!inputs.is_empty(), "{} is empty", path.display());
    inputs
}

/// Carries a recipe out.
pub(crate) fn mutate((which, changes): &Recipe, corpus: &[Vec<u8>], longest: usize) -> Vec<u8> {
    let mut bytes = corpus[*which as usize % corpus.len()].clone();
    // Few changes reach deep, many try much: mostly few.
    let most = 1 + (*which as usize >> 8) % 6;
    for change in changes.iter().take(most) {
        alter(&mut bytes, *change, corpus);
    }
    bytes.truncate(longest);
    bytes
}

/// Makes one change.
pub(crate) fn alter(bytes: &mut Vec<u8>, (what, at, len, value): Change, corpus: &[Vec<u8>]) {
    let at = at as usize % (bytes.len() + 1);
    let end = (at + len as usize).min(bytes.len());
    let edge = EDGES[value as usize % EDGES.len()];
    let put = |bytes: &mut Vec<u8>, new: &[u8]| {
        for (to, from) in bytes[at..].iter_mut().zip(new) {
            *to = *from;
        }
    };
    match what % 10 {
        0 => put(bytes, &[value as u8]),
        1 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (value % 8)),
        2 => put(bytes, &(edge as u16).to_be_bytes()),
        3 => put(bytes, &(edge as u16).to_le_bytes()),
        4 => put(bytes, &edge.to_le_bytes()),
        5 => put(bytes, &edge.to_be_bytes()),
        6 => drop(bytes.drain(at..end)),
        7 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        8 => {
            // A piece of another input in this place.
            let Some(other) = corpus.get(value as usize % corpus.len().max(1)) else { return };
            let from = (value >> 16) as usize % (other.len() + 1);
            let piece = other[from..(from + len as usize).min(other.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => bytes.truncate(at),
    }
}
