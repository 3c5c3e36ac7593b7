//! What is wrong with a configuration: every problem at once, each with its place.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// A place in the configuration, for messages: `tenants.d/acme.toml:31`.
///
/// All origins are equal to each other: where something was written is no part of what is desired, and a tenant that
/// moved to another line has not changed.
#[derive(Clone)]
pub struct Origin {
    file: Arc<str>,
    /// The file's turn in being read, by which problems are sorted.
    turn: u32,
    /// From 1; 0 is the file as a whole.
    line: u32,
}

impl Origin {
    pub(super) fn new(file: Arc<str>, turn: u32, line: u32) -> Self {
        Self { file, turn, line }
    }

    /// The file, as it was named on the command line or found by `include`.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, from 1; 0 if the file as a whole is meant.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The same file as a whole.
    pub(super) fn whole_file(&self) -> Self {
        Self { line: 0, ..self.clone() }
    }

    fn position(&self) -> (u32, u32) {
        (self.turn, self.line)
    }
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One thing that is wrong: where, what was found, and what would be right.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Where it is.
    pub at: Origin,
    /// What was found; what would be right. One line, and never a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// Everything that is wrong, in the order of the files and their lines. Never empty.
#[derive(Clone, Debug)]
pub struct Errors(Vec<Problem>);

impl Errors {
    /// The problems, in the order of the files and their lines.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

/// One problem a line.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Where problems gather while a configuration is read; shared by all that read it.
#[derive(Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn add(&self, at: &Origin, message: String) {
        self.0.borrow_mut().push(Problem { at: at.clone(), message });
    }

    pub(super) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// `Ok` if nothing was wrong.
    pub(super) fn done(self) -> Result<(), Errors> {
        let mut problems = self.0.into_inner();
        problems.sort_by_key(|problem| problem.at.position()); // stable: within a line, in the order of discovery
        if problems.is_empty() { Ok(()) } else { Err(Errors(problems)) }
    }
}

/// How a value is shown in a message: bare if it could be an address or a number, else quoted, with what can't be
/// printed escaped and what is too long to help cut off.
pub(super) fn shown(text: &str) -> String {
    let cut = cut(text);
    let bare = |c: char| c.is_ascii_hexdigit() || ".:/[]-".contains(c);
    if !cut.is_empty() && cut.chars().all(bare) && cut.contains(|c: char| c.is_ascii_digit()) {
        cut
    } else {
        format!("{cut:?}")
    }
}

/// The text, or its beginning if it is too long for a message.
pub(super) fn cut(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The known word nearest to `word`, if it is near enough to have been meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let farthest = (word.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= farthest)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
