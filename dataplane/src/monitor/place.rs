//! Where a hub's statistics segment is.

use crate::api::{DEFAULT_RUN_ROOT, STATS, is_name};
use anyhow::{Context, Result, bail};
use std::io;
use std::path::{Path, PathBuf};

/// Which segment is meant.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SegmentArgs {
    /// The hub, by its name in the configuration; not needed where there is only one
    #[arg(long, value_name = "NAME")]
    pub(super) hub: Option<String>,
    /// The statistics segment itself, wherever it is
    #[arg(long, value_name = "PATH", conflicts_with = "hub")]
    pub(super) stats: Option<PathBuf>,
    /// Where the directories of hubs are
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_ROOT, hide = true)]
    pub(super) run_dir: PathBuf,
}

impl SegmentArgs {
    /// The path of the segment. A hub that does not run any more may still have left one.
    pub(super) fn find(&self) -> Result<PathBuf> {
        if let Some(path) = &self.stats {
            return Ok(path.clone());
        }
        let mut hubs = hubs(&self.run_dir)?;
        let path = |hub: &str| self.run_dir.join(hub).join(STATS);
        match (&self.hub, hubs.len()) {
            (Some(hub), _) if is_name(hub) && hubs.contains(hub) => Ok(path(hub)),
            (Some(hub), 0) => bail!("there are no statistics of a hub {hub:?} here, nor of another"),
            (Some(hub), _) => bail!("there are no statistics of a hub {hub:?} here; there are of {}", hubs.join(", ")),
            (None, 0) => bail!(
                "no hub has statistics here (there is no {}); start one with `ekiden run --config FILE`",
                self.run_dir.join("NAME").join(STATS).display()
            ),
            (None, 1) => Ok(path(&hubs.remove(0))),
            (None, _) => bail!("several hubs have statistics here: {}; choose one with --hub NAME", hubs.join(", ")),
        }
    }
}

/// The hubs whose directories have a segment, in order.
fn hubs(root: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(root.display().to_string()),
    };
    // A directory that this user can't look into has one, for all that is known: opening it will say what is wrong.
    let has_segment = |name: &String| match root.join(name).join(STATS).try_exists() {
        Ok(exists) => exists,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut hubs: Vec<_> = names.filter(|name| is_name(name) && has_segment(name)).collect();
    hubs.sort();
    Ok(hubs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_hub_is_found_and_others_are_named() {
        let root = tempfile::tempdir().unwrap();
        let args = |hub: Option<&str>| SegmentArgs {
            hub: hub.map(Into::into),
            stats: None,
            run_dir: root.path().join("ekiden"),
        };
        let error = |hub| args(hub).find().unwrap_err().to_string();
        assert!(error(None).contains("no hub has statistics here"));
        let make = |hub: &str| {
            let directory = root.path().join("ekiden").join(hub);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("stats"), "").unwrap();
        };
        make("tokyo-1");
        std::fs::create_dir(root.path().join("ekiden/empty")).unwrap();
        assert!(args(None).find().unwrap().ends_with("ekiden/tokyo-1/stats"));
        make("osaka-1");
        assert!(error(None).contains("osaka-1, tokyo-1; choose one"));
        assert!(args(Some("osaka-1")).find().unwrap().ends_with("ekiden/osaka-1/stats"));
        assert!(error(Some("nagoya-1")).contains("\"nagoya-1\" here; there are of osaka-1, tokyo-1"));
        assert!(error(Some("../x")).contains("no statistics of a hub"));
    }
}
