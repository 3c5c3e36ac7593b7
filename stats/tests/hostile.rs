//! Whatever a file says: an error message or some numbers, never a crash, and never more memory than the file could mean.

mod common;

use common::{Hub, fill};
use proptest::prelude::*;
use stats::{ReadError, Reader, Series};
use std::path::Path;

/// Everything that a reader can do.
fn read(path: &Path) -> Result<(), ReadError> {
    let mut reader = Reader::open(path)?;
    for series in [Series::Tenant(0), Series::Site(1), Series::SiteLong(1 << 40), Series::Drop(42), Series::Drop(255)] {
        for from in [0, 7, u64::MAX] {
            reader.history(series, from)?;
        }
        reader.history_span_ns(series);
    }
    let snapshot = reader.snapshot()?;
    snapshot
        .sites
        .iter()
        .for_each(|site| assert!(snapshot.tenant_of(site).is_none_or(|tenant| tenant.slot == site.tenant)));
    snapshot.tenants.iter().for_each(|tenant| assert!(snapshot.sites_of(tenant).count() <= snapshot.sites.len()));
    snapshot.workers.iter().for_each(|worker| assert!(worker.latency.quantile(0.99) <= stats::MAX_NS));
    snapshot.age_ns();
    Ok(())
}

/// A small segment with something in it, as bytes.
fn segment() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let shape = stats::Shape { tenants: 1, sites: 2, ports: 2, ..stats::Shape::default() };
    let mut spec = common::spec(shape, 1);
    spec.memory = 1;
    let mut segment = stats::Segment::create(&directory.path().join("stats"), spec).unwrap().segment;
    segment.publish().unwrap();
    let (rows, control) = (vec![segment.rows(0)], segment.control_rows());
    let mut hub = Hub { directory, segment, rows, control };
    fill(&hub, 1);
    hub.tick(100);
    std::fs::read(hub.path()).unwrap()
}

/// A word of the header, the table of sections or the first rows: where a wrong number does most harm.
fn place() -> impl Strategy<Value = usize> {
    prop_oneof![0..64_usize, 64..240_usize, 0..4096_usize]
}

fn value() -> impl Strategy<Value = u64> {
    let near = (any::<i8>(), 0..64_u32).prop_map(|(by, shift)| (1_u64 << shift).wrapping_add_signed(by.into()));
    prop_oneof![any::<u64>(), near, Just(0), Just(u64::MAX), 0..100_000_u64]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_bytes_are_no_segment(bytes in prop::collection::vec(any::<u8>(), 0..20_000), magic: bool) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 16 {
            bytes[..16].copy_from_slice(b"ekidstat\x01\0\0\0\0\0\0\0");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let error = read(file.path()).unwrap_err().to_string();
        prop_assert!(error.contains("is no statistics segment"), "{}", error);
    }

    #[test]
    fn damaged_words_are_survived(damage in prop::collection::vec((place(), value()), 1..12), cut in prop::option::of(any::<prop::sample::Index>())) {
        use std::sync::OnceLock;
        static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
        let mut bytes = GOOD.get_or_init(segment).clone();
        for (at, value) in damage {
            bytes[at * 8..at * 8 + 8].copy_from_slice(&value.to_le_bytes());
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        // Either is right; neither a crash nor a hang is.
        if let Err(error) = read(file.path()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let good = segment();
    let file = tempfile::NamedTempFile::new().unwrap();
    let says = |bytes: &[u8], part: &str| {
        std::fs::write(file.path(), bytes).unwrap();
        let error = read(file.path()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(file.path().to_str().unwrap()), "{error}");
    };
    let with = |at: usize, value: u64| {
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    says(&[], "0 bytes");
    says(&good[..good.len() - 4096], "truncated");
    says(&[&good[..], &[0; 4096]].concat(), "truncated, or damaged");
    says(&with(0, 1), "does not begin like one");
    says(&with(8, 2), "has layout 2, and this program reads layout 1");
    says(&with(88, 3), "sections are missing");
    says(&with(512, good.len() as u64), "the section tenants is not within the file");
    says(&with(512 + 5 * 64 + 24, 2), "the section site_rows");
    says(&with(96, 1), "did not stand still");
    let nowhere = Path::new("/nonexistent/stats");
    assert!(read(nowhere).unwrap_err().to_string().contains("could not open /nonexistent/stats"));
    let directory = tempfile::tempdir().unwrap();
    assert!(read(directory.path()).unwrap_err().to_string().contains("not a regular file"));
}
