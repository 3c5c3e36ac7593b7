//! Any text as a configuration: it is refused, with the place of each problem, or accepted, and then for good.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bolero::generator::produce;

use super::*;
use crate::mutate::{Recipe, corpus, mutate, seconds};

#[test]
fn any_text() {
    static ACCEPTED: AtomicU64 = AtomicU64::new(0);
    static REFUSED: AtomicU64 = AtomicU64::new(0);
    let place = Place::new();
    let path = place.0.path().join("hub.toml");
    let check = move |text: &[u8]| -> bool {
        fs::write(&path, text).unwrap();
        match load(&path) {
            Ok(desired) => {
                assert!(!desired.ports.is_empty());
                assert!(load(&path).is_ok_and(|again| again == desired), "it means something else now");
                ACCEPTED.fetch_add(1, Relaxed);
                true
            }
            Err(errors) => {
                let lines = text.iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
                assert!(!errors.problems().is_empty());
                for problem in errors.problems() {
                    assert!(!problem.message.is_empty() && problem.at.line() <= lines, "{problem:?} of {lines} lines");
                }
                assert!(errors.to_string().contains("hub.toml"), "{errors}");
                REFUSED.fetch_add(1, Relaxed);
                false
            }
        }
    };
    let texts = corpus("tests/corpus/config");
    assert_eq!(texts.iter().filter(|text| check(text)).count(), 5, "five of the corpus are good");
    let mut world = AssertUnwindSafe((check, texts));
    bolero::check!().with_test_time(seconds()).with_generator(produce::<Recipe>()).for_each(move |recipe| {
        let AssertUnwindSafe((check, texts)) = &mut world;
        check(&mutate(recipe, texts, 1 << 16));
    });
    let (accepted, refused) = (ACCEPTED.load(Relaxed), REFUSED.load(Relaxed));
    eprintln!("{accepted} accepted, {refused} refused");
    assert!(accepted > 5 && refused > 1, "{accepted} accepted, {refused} refused");
}
