//! A thin layer over the parsed TOML: it knows which keys a table takes, says what is wrong and where, and leaves the
//! code that walks the configuration declarative.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::errors::{Origin, Problems, cut, nearest, shown};

/// What a kind of table takes. Unknown and missing keys are found by it alone.
pub(super) struct Shape {
    /// How the table is written, for messages about it before its name is known: `[[tenant.site]]`.
    pub(super) title: &'static str,
    /// What one such table is called, and the key that names it; none for a table that is there once.
    pub(super) noun: Option<(&'static str, &'static str)>,
    /// Its keys.
    pub(super) keys: &'static [Key],
}

/// A key that a table takes.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// How the key is written, to be shown where it is missing or has a value of the wrong type.
    pub(super) example: &'static str,
    pub(super) required: bool,
}

/// A key that a table must have.
pub(super) const fn required(name: &'static str, example: &'static str) -> Key {
    Key { name, example, required: true }
}

/// A key that a table may have.
pub(super) const fn optional(name: &'static str, example: &'static str) -> Key {
    Key { name, example, required: false }
}

/// A file's text, and where its lines begin.
pub(super) struct Source {
    name: Arc<str>,
    directory: PathBuf,
    turn: u32,
    text: String,
    line_starts: Vec<usize>,
}

impl Source {
    pub(super) fn new(path: &Path, turn: u32, text: String) -> Self {
        let after_newline = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_newline).collect();
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Self { name: path.display().to_string().into(), directory, turn, text, line_starts }
    }

    /// The digest of the files so far, and this one (FNV-1a).
    pub(super) fn digest(&self, before: u64) -> u64 {
        let seed = before ^ 0xcbf2_9ce4_8422_2325;
        self.text.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }

    fn at(&self, offset: usize) -> Origin {
        // Line starts begin with 0, so at least one is not beyond the offset.
        let line = self.line_starts.partition_point(|start| *start <= offset);
        Origin::new(self.name.clone(), self.turn, line as u32)
    }

    /// The parsed file; `None`, and the problems noted, if it is not TOML.
    pub(super) fn parse(&self, problems: &Problems) -> Option<Spanned<DeTable<'_>>> {
        /// An unclosed bracket makes an error of every line after it: more than a few help nobody.
        const MOST: usize = 8;

        let (root, mut errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            return Some(root);
        }
        let offset = |span: Option<Range<usize>>| span.map_or(0, |span| span.start);
        errors.sort_by_key(|error| offset(error.span()));
        errors.dedup_by_key(|error| self.at(offset(error.span())).line()); // the first of a line causes the others
        let left_out = errors.len().saturating_sub(MOST);
        for error in errors.iter().take(MOST) {
            let at = self.at(offset(error.span()));
            let start = self.line_starts[at.line() as usize - 1];
            let column = self.text.get(start..offset(error.span())).map_or(1, |before| before.chars().count() + 1);
            // The text itself isn't shown, in case a secret was pasted here; the name of a key is none.
            let key = match error.span().and_then(|span| self.text.get(span)) {
                Some(key) if error.message() == "duplicate key" => format!(" {}; it is already set above", shown(key)),
                _ => String::new(),
            };
            problems.add(&at, format!("not valid TOML at column {column}: {}{key}", error.message()));
        }
        if left_out > 0 {
            let last = self.at(offset(errors[MOST - 1].span()));
            problems
                .add(&last, format!("{left_out} more lines are not valid TOML; they may follow from the ones above"));
        }
        None
    }
}

/// A value, and where it was written.
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: Origin,
}

/// One table of a file.
pub(super) struct Table<'a> {
    shape: &'static Shape,
    source: &'a Source,
    problems: &'a Problems,
    entries: &'a DeTable<'a>,
    at: Origin,
    /// How messages call this table: `site "osaka"`, or `[hub]`.
    owner: String,
}

impl<'a> Table<'a> {
    /// The whole file as a table.
    pub(super) fn root(
        shape: &'static Shape,
        source: &'a Source,
        problems: &'a Problems,
        root: &'a Spanned<DeTable<'a>>,
    ) -> Self {
        Self::open(shape, source, problems, root.get_ref(), source.at(0))
    }

    /// Names what the shape doesn't know, and what it misses.
    fn open(
        shape: &'static Shape,
        source: &'a Source,
        problems: &'a Problems,
        entries: &'a DeTable<'a>,
        at: Origin,
    ) -> Self {
        let owner = match shape.noun.map(|(noun, key)| (noun, entries.get(key).map(Spanned::get_ref))) {
            Some((noun, Some(DeValue::String(name)))) => format!("{noun} {:?}", cut(name)),
            Some((noun, Some(DeValue::Integer(number)))) => format!("{noun} {number}"),
            _ => shape.title.to_owned(),
        };
        for key in entries.keys().filter(|key| shape.keys.iter().all(|known| known.name != key.get_ref().as_ref())) {
            let hint = unknown_key_hint(shape, key.get_ref());
            let name = shown(key.get_ref());
            problems.add(&source.at(key.span().start), format!("unknown key {name} in {owner}; {hint}"));
        }
        for key in shape.keys.iter().filter(|key| key.required && entries.get(key.name).is_none()) {
            let Key { name, example, .. } = key;
            problems.add(&at, format!("{owner} has no {name}; add it, like {example}"));
        }
        Self { shape, source, problems, entries, at, owner }
    }

    /// Where the table begins.
    pub(super) fn at(&self) -> &Origin {
        &self.at
    }

    /// How messages call this table.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// How messages call this table where they speak of `key`: by the name in it, unless that is what is wrong.
    fn owner_of(&self, key: &str) -> &str {
        match self.shape.noun {
            Some((_, name)) if name == key => self.shape.title,
            _ => &self.owner,
        }
    }

    /// Where a key of the table is; the table itself if it has no such key.
    pub(super) fn at_key(&self, key: &str) -> Origin {
        self.entries.get_key_value(key).map_or_else(|| self.at.clone(), |(key, _)| self.source.at(key.span().start))
    }

    /// Where relative paths in the table start: beside its file.
    pub(super) fn directory(&self) -> &'a Path {
        &self.source.directory
    }

    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        matches!(self.entries.get(key).map(Spanned::get_ref), Some(DeValue::Array(elements)) if elements.is_empty())
    }

    pub(super) fn is_table(&self, key: &str) -> bool {
        matches!(self.entries.get(key).map(Spanned::get_ref), Some(DeValue::Table(_)))
    }

    pub(super) fn is_integer(&self, key: &str) -> bool {
        matches!(self.entries.get(key).map(Spanned::get_ref), Some(DeValue::Integer(_)))
    }

    pub(super) fn is_string(&self, key: &str) -> bool {
        matches!(self.entries.get(key).map(Spanned::get_ref), Some(DeValue::String(_)))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn string<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Located<T>> {
        let at = self.at_key(key);
        match self.entries.get(key)?.get_ref() {
            DeValue::String(text) => self.checked(key, at, shown(text), parse(text)),
            other => self.wrong_type(&at, key, other, "a string"),
        }
    }

    pub(super) fn integer<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(i128) -> Result<T, String>,
    ) -> Option<Located<T>> {
        let at = self.at_key(key);
        match self.entries.get(key)?.get_ref() {
            DeValue::Integer(number) => self.checked(key, at, number.to_string(), integer_value(number, parse)),
            other => self.wrong_type(&at, key, other, "an integer"),
        }
    }

    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        match self.entries.get(key)?.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            other => self.wrong_type(&self.at_key(key), key, other, "true or false"),
        }
    }

    /// The elements of a list of strings that parse; `each` is what messages call one.
    pub(super) fn strings<T>(
        &self,
        key: &'static str,
        each: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<Located<T>> {
        self.elements(key, "a list of strings", |at, element| match element {
            DeValue::String(text) => self.checked(each, at, shown(text), parse(text)),
            other => self.wrong_type(&at, key, other, "a list of strings"),
        })
    }

    /// The elements of a list of integers that parse; `each` is what messages call one.
    pub(super) fn integers<T>(
        &self,
        key: &'static str,
        each: &str,
        parse: impl Fn(i128) -> Result<T, String>,
    ) -> Vec<Located<T>> {
        self.elements(key, "a list of integers", |at, element| match element {
            DeValue::Integer(number) => self.checked(each, at, number.to_string(), integer_value(number, &parse)),
            other => self.wrong_type(&at, key, other, "a list of integers"),
        })
    }

    /// The same, where a single integer stands for a list of it.
    pub(super) fn one_or_more_integers<T>(
        &self,
        key: &'static str,
        each: &'static str,
        parse: impl Fn(i128) -> Result<T, String>,
    ) -> Vec<Located<T>> {
        match self.entries.get(key).map(Spanned::get_ref) {
            Some(DeValue::Integer(_)) => self.integer(key, parse).into_iter().collect(),
            _ => self.integers(key, each, parse),
        }
    }

    /// The table under a key.
    pub(super) fn table(&self, key: &'static str, shape: &'static Shape) -> Option<Table<'a>> {
        match self.entries.get(key)?.get_ref() {
            DeValue::Table(entries) => Some(Table::open(shape, self.source, self.problems, entries, self.at_key(key))),
            other => self.wrong_type(&self.at_key(key), key, other, "a table"),
        }
    }

    /// The tables of a list of tables.
    pub(super) fn tables(&self, key: &'static str, shape: &'static Shape) -> Vec<Table<'a>> {
        let what = "a list of tables";
        if let Some(DeValue::Table(_)) = self.entries.get(key).map(Spanned::get_ref) {
            let (at, title) = (self.at_key(key), shape.title);
            self.problems.add(&at, format!("{key} is a single table; write {title}, with two brackets, above each"));
            return Vec::new();
        }
        self.elements(key, what, |at, element| match element {
            DeValue::Table(entries) => Some(Table::open(shape, self.source, self.problems, entries, at)),
            other => self.wrong_type(&at, key, other, what),
        })
    }

    fn elements<T>(
        &self,
        key: &'static str,
        what: &str,
        read: impl Fn(Origin, &'a DeValue<'a>) -> Option<T>,
    ) -> Vec<T> {
        match self.entries.get(key).map(Spanned::get_ref) {
            None => Vec::new(),
            Some(DeValue::Array(elements)) => elements
                .iter()
                .filter_map(|element| read(self.source.at(element.span().start), element.get_ref()))
                .collect(),
            Some(other) => {
                self.wrong_type::<()>(&self.at_key(key), key, other, what);
                Vec::new()
            }
        }
    }

    fn checked<T>(&self, what: &str, at: Origin, found: String, parsed: Result<T, String>) -> Option<Located<T>> {
        match parsed {
            Ok(value) => Some(Located { value, at }),
            Err(rule) => {
                self.problems.add(&at, format!("{what} {found} of {}: {rule}", self.owner_of(what)));
                None
            }
        }
    }

    fn wrong_type<T>(&self, at: &Origin, key: &str, found: &DeValue<'_>, right: &str) -> Option<T> {
        let found = match found {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let verb = if right.starts_with("a list") && self.is_list(key) { "contains" } else { "is" };
        let example = self.shape.keys.iter().find(|known| known.name == key).map_or("", |known| known.example);
        self.problems
            .add(at, format!("{key} of {} {verb} {found}; {right} is right, like {example}", self.owner_of(key)));
        None
    }

    fn is_list(&self, key: &str) -> bool {
        matches!(self.entries.get(key).map(Spanned::get_ref), Some(DeValue::Array(_)))
    }
}

fn integer_value<T>(number: &DeInteger<'_>, parse: impl FnOnce(i128) -> Result<T, String>) -> Result<T, String> {
    match i128::from_str_radix(number.as_str(), number.radix()) {
        Ok(value) => parse(value),
        Err(_) => Err("far too large".to_owned()),
    }
}

/// What an unknown key was probably meant to be: a key of another table that slipped under the wrong header, a
/// misspelt one, or else what the table takes.
fn unknown_key_hint(shape: &Shape, key: &str) -> String {
    let takes = |other: &&&Shape| other.keys.iter().any(|known| known.name == key);
    let elsewhere: Vec<_> = super::parse::SHAPES.iter().filter(takes).map(|other| other.title).collect();
    let here: Vec<_> = shape.keys.iter().map(|known| known.name).collect();
    match nearest(key, here.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        _ if !elsewhere.is_empty() => format!("it belongs to {}", elsewhere.join(" or ")),
        None => format!("known here: {}", here.join(", ")),
    }
}
