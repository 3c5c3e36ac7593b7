//! Which files an `include` means.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// The files that a pattern means, sorted by name; a relative one starts where the configuration is.
///
/// A pattern with a wildcard may match nothing, since a directory of tenants may be empty; a plain name may not.
pub(super) fn matches(directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    if !pattern.contains(['*', '?', '[']) {
        let path = directory.join(pattern);
        return match path.is_file() {
            true => Ok(vec![path]),
            false => Err(format!("there is no file {}; only a pattern with a wildcard may match none", path.display())),
        };
    }
    let Some(base) = directory.to_str() else {
        return Err(
            "the directory's own name is not UTF-8, so patterns in it can't be matched; list the files".to_owned()
        );
    };
    // Only the pattern has wildcards: a directory named `[old]` is just that.
    let whole = if Path::new(pattern).is_absolute() || base.is_empty() {
        pattern.to_owned()
    } else {
        format!("{}/{pattern}", Pattern::escape(base.trim_end_matches('/')))
    };
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true, // an editor's hidden files are not meant
    };
    let found = glob::glob_with(&whole, options).map_err(|error| format!("not a pattern: {}", error.msg))?;
    let mut files = Vec::new();
    for path in found {
        let path = path.map_err(|error| format!("{} can't be read: {}", error.path().display(), error.error()))?;
        // To open a device may do something, and to read one may never end. What can't be looked at fails in being read.
        match path.metadata() {
            Ok(about) if about.is_dir() => {}
            Ok(about) if !about.is_file() => return Err(format!("{} is not a regular file", path.display())),
            _ => files.push(path),
        }
    }
    Ok(files)
}
