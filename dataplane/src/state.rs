//! What the hub remembers across a restart: `/var/lib/ekiden/NAME/peers`, per site its last endpoint and the greatest
//! timestamp of its handshakes; and the greatest timestamp of the hub's own. With the first the hub finds its sites again
//! at once; with the second an initiation recorded before the restart can't be replayed after it; with the third the
//! sites still listen to a hub whose clock was set back. There is no secret in it.
//!
//! The file is replaced as a whole (new file, fsync, rename), so that a crash leaves the old one or the new one. A file
//! that can't be understood is kept aside and the hub starts without: its sites are found again when they next speak.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use wire::TenantId;

/// Where the hubs' directories are, unless a test says otherwise.
pub const DEFAULT_STATE_ROOT: &str = "/var/lib/ekiden";
/// The version of the format; a file with another one is not read.
const VERSION: u32 = 1;
/// The file's name, while it is written, and when it could not be understood.
const FILE: &str = "peers";
const UNFINISHED: &str = "peers.new";
const CORRUPT: &str = "peers.corrupt";

/// What is known of a peer: a site's, or a lane's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The public key that the rest belongs to: another key's timestamps say nothing about this one's.
    pub public_key: [u8; 32],
    /// Where the site was last.
    pub endpoint: Option<SocketAddr>,
    /// The hub's own address that it talked to.
    pub local: Option<IpAddr>,
    /// The greatest TAI64N that it has sent.
    pub timestamp: Option<[u8; 12]>,
}

/// Whose a peer is: a tenant's, as sites are, or the hub's own, as the lanes of trunks are.
pub type Owner = Option<TenantId>;

type Peers = BTreeMap<Owner, BTreeMap<String, Known>>;

/// What the hub remembers, and where.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    peers: Peers,
    /// The greatest TAI64N that the hub itself has sent to anybody.
    stamped: Option<[u8; 12]>,
    dirty: bool,
}

/// Something that an operator should know of the file; the hub runs on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Warning(pub String);

/// Why the state could not be saved; the hub runs on with what it has in memory.
#[derive(Debug, thiserror::Error)]
#[error("could not save what is known of the sites: could not {what} {}: {source}", .path.display())]
pub struct SaveError {
    what: &'static str,
    path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// A state on its way to the disk, made by [`State::snapshot`]. Writing it waits for the disk, and so belongs on a thread
/// that may wait. Two of one hub must not be written at the same time.
#[derive(Debug)]
#[must_use = "a snapshot that is not written is lost"]
pub struct Snapshot {
    dir: PathBuf,
    text: Vec<u8>,
}

impl State {
    /// Reads the state in `dir`, a hub's own directory, which need not exist. There is always a state; the warning says
    /// why it is empty if it should not be.
    pub fn load(dir: &Path) -> (Self, Option<Warning>) {
        let mut state = Self { dir: dir.into(), peers: Peers::new(), stamped: None, dirty: false };
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (state, None),
            Err(error) => {
                return (state, Some(Warning(format!("could not read {}: {error}; {CONSEQUENCE}", path.display()))));
            }
        };
        match parse(&text) {
            Ok((peers, stamped)) => {
                (state.peers, state.stamped) = (peers, stamped);
                (state, None)
            }
            Err(why) => {
                let aside = dir.join(CORRUPT);
                let kept = match fs::rename(&path, &aside) {
                    Ok(()) => format!("kept as {}", aside.display()),
                    Err(error) => format!("and could not be kept aside ({error})"),
                };
                (state, Some(Warning(format!("{}: {why}; {kept}; {CONSEQUENCE}", path.display()))))
            }
        }
    }

    /// What is known of a site, if it still has the key that it is known by.
    pub fn known(&self, owner: Owner, site: &str, public_key: &[u8; 32]) -> Option<&Known> {
        self.peers.get(&owner)?.get(site).filter(|known| known.public_key == *public_key)
    }

    /// How many sites something is known of.
    pub fn len(&self) -> usize {
        self.peers.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing is known of any site.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Remembers a site, in the place of what was known of it.
    pub fn remember(&mut self, owner: Owner, site: &str, known: Known) {
        let sites = self.peers.entry(owner).or_default();
        if sites.get(site) != Some(&known) {
            sites.insert(site.into(), known);
            self.dirty = true;
        }
    }

    /// The greatest TAI64N that the hub had sent when it was last noted.
    pub fn stamped(&self) -> Option<[u8; 12]> {
        self.stamped
    }

    /// The hub has sent this TAI64N.
    pub fn note_stamp(&mut self, stamp: [u8; 12]) {
        if self.stamped < Some(stamp) {
            self.stamped = Some(stamp);
            self.dirty = true;
        }
    }

    /// Forgets every site for which `keep` says no: those that the configuration no longer has.
    pub fn retain(&mut self, mut keep: impl FnMut(Owner, &str, &Known) -> bool) {
        let before = self.len();
        for (owner, sites) in &mut self.peers {
            sites.retain(|site, known| keep(*owner, site, known));
        }
        self.peers.retain(|_, sites| !sites.is_empty());
        self.dirty |= self.len() != before;
    }

    /// Whether something has changed since the last snapshot.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// What to write, if something has changed since the last time. If writing fails, say so by [`State::unsaved`].
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        if !self.dirty {
            return None;
        }
        self.dirty = false;
        Some(Snapshot { dir: self.dir.clone(), text: emit(&self.peers, self.stamped) })
    }

    /// The last snapshot did not reach the disk.
    pub fn unsaved(&mut self) {
        self.dirty = true;
    }

    /// Writes what has changed, here and now. `Ok(false)`: nothing had changed.
    pub fn save(&mut self) -> Result<bool, SaveError> {
        let Some(snapshot) = self.snapshot() else { return Ok(false) };
        let written = snapshot.write();
        self.dirty |= written.is_err();
        written.map(|()| true)
    }
}

impl Snapshot {
    /// Replaces the file. When this returns, the new one survives a loss of power.
    pub fn write(self) -> Result<(), SaveError> {
        let fail = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SaveError { what, path, source }
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.dir).map_err(fail("make the directory", &self.dir))?;
        let (unfinished, file) = (self.dir.join(UNFINISHED), self.dir.join(FILE));
        let written = (|| {
            let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            out.write_all(&self.text)?;
            out.sync_all()
        })();
        if let Err(source) = written {
            // What is half written only takes room on a disk that may be full.
            let _ = fs::remove_file(&unfinished);
            return Err(SaveError { what: "write", path: unfinished, source });
        }
        fs::rename(&unfinished, &file).map_err(fail("replace", &file))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(fail("write", &self.dir))
    }
}

/// What an operator has to expect of a state that was not read.
const CONSEQUENCE: &str = "starting without it: sites without a configured endpoint are reached once they speak first, \
                           and a recorded handshake initiation could be accepted once more";

/// The first line of the file; then comes a line of JSON a site, so that it can be read with `less` and searched with
/// `grep`. The number of sites tells a file that was cut short from a whole one.
#[derive(Serialize, Deserialize)]
struct Head {
    ekiden_peers: u32,
    sites: usize,
    /// Hexadecimal. What an earlier ekiden wrote has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamped: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    /// A lane of a trunk has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<u32>,
    #[serde(borrow)]
    site: Cow<'a, str>,
    /// Base64, as `wg` shows it.
    public_key: Cow<'a, str>,
    endpoint: Option<SocketAddr>,
    local: Option<IpAddr>,
    /// Hexadecimal, as `tai64nlocal` reads it.
    tai64n: Option<Cow<'a, str>>,
}

fn emit(peers: &Peers, stamped: Option<[u8; 12]>) -> Vec<u8> {
    let sites = peers.values().map(BTreeMap::len).sum();
    let mut text = Vec::with_capacity(256 * sites + 64);
    push(&mut text, &Head { ekiden_peers: VERSION, sites, stamped: stamped.map(|bytes| hex(&bytes)) });
    for (owner, sites) in peers {
        for (site, known) in sites {
            let line = Line {
                tenant: owner.map(TenantId::as_u32),
                site: site.into(),
                public_key: BASE64.encode(known.public_key).into(),
                endpoint: known.endpoint,
                local: known.local,
                tai64n: known.timestamp.map(|bytes| hex(&bytes).into()),
            };
            push(&mut text, &line);
        }
    }
    text
}

fn push(text: &mut Vec<u8>, line: &impl Serialize) {
    // Into memory, from a struct with fixed names: neither can fail.
    let _ = serde_json::to_writer(&mut *text, line);
    text.push(b'\n');
}

fn parse(text: &[u8]) -> Result<(Peers, Option<[u8; 12]>), String> {
    let text = std::str::from_utf8(text).map_err(|error| format!("is no text: {error}"))?;
    let mut lines = text.lines().zip(1..);
    let (first, _) = lines.next().ok_or("is empty")?;
    let head: Head = serde_json::from_str(first).map_err(|error| format!("line 1: {error}"))?;
    if head.ekiden_peers != VERSION {
        return Err(format!("is of version {}; this ekiden reads version {VERSION}", head.ekiden_peers));
    }
    let stamped =
        head.stamped.map(|text| unhex(&text).ok_or("line 1: a TAI64N is 24 hexadecimal digits")).transpose()?;
    let mut peers = Peers::new();
    let mut sites = 0;
    for (text, number) in lines {
        let (owner, site, known) = parse_line(text).map_err(|why| format!("line {number}: {why}"))?;
        if peers.entry(owner).or_default().insert(site, known).is_some() {
            return Err(format!("line {number}: this site was there before"));
        }
        sites += 1;
    }
    if sites == head.sites {
        Ok((peers, stamped))
    } else {
        Err(format!("should hold {} sites and holds {sites}", head.sites))
    }
}

fn parse_line(text: &str) -> Result<(Owner, String, Known), String> {
    let line: Line<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let id = |id: u32| TenantId::new(id.into()).map_err(|error| error.to_string());
    let owner = line.tenant.map(id).transpose()?;
    let key = BASE64.decode(line.public_key.as_ref()).ok().and_then(|key| key.try_into().ok());
    let timestamp = line.tai64n.map(|text| unhex(&text).ok_or("a TAI64N is 24 hexadecimal digits")).transpose()?;
    let known = Known {
        public_key: key.ok_or("a public key is 32 bytes of base64")?,
        endpoint: line.endpoint,
        local: line.local,
        timestamp,
    };
    Ok((owner, line.site.into_owned(), known))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<[u8; 12]> {
    let mut bytes = [0; 12];
    if text.len() != 24 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn tenant(id: u64) -> Owner {
        Some(TenantId::new(id).unwrap())
    }

    fn known(n: u32) -> Known {
        let mut public_key = [7; 32];
        public_key[..4].copy_from_slice(&n.to_le_bytes());
        let mut timestamp = [0x40; 12];
        timestamp[8..].copy_from_slice(&n.to_be_bytes());
        Known {
            public_key,
            endpoint: Some(SocketAddr::new([192, 0, 2, n as u8].into(), 51820)),
            local: Some("2001:db8::1".parse().unwrap()),
            timestamp: Some(timestamp),
        }
    }

    fn filled(dir: &Path, sites: u32) -> State {
        let (mut state, warning) = State::load(dir);
        assert_eq!(warning, None);
        for n in 0..sites {
            state.remember(tenant(u64::from(n / 10)), &format!("site {n} \"大阪\"\n"), known(n));
        }
        state
    }

    #[test]
    fn what_is_saved_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("not/yet/there");
        let mut state = filled(&home, 25);
        let bare = Known { public_key: [9; 32], endpoint: None, local: None, timestamp: None };
        state.remember(tenant(77), "bare", bare.clone());
        state.note_stamp([0x40; 12]);
        state.note_stamp([0x3f; 12]);
        assert!(state.save().unwrap());
        state.note_stamp([0x40; 12]);
        assert!(!state.save().unwrap(), "nothing has changed");

        let (again, warning) = State::load(&home);
        assert_eq!(warning, None);
        assert_eq!(again.peers, state.peers);
        assert_eq!((again.len(), again.stamped()), (26, Some([0x40; 12])));
        assert_eq!(again.known(tenant(77), "bare", &[9; 32]), Some(&bare));
        assert_eq!(again.known(tenant(77), "bare", &[8; 32]), None, "known by another key");
        assert_eq!(fs::metadata(home.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!home.join(UNFINISHED).exists());
    }

    #[test]
    fn only_changes_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = filled(dir.path(), 3);
        assert!(state.save().unwrap());
        state.remember(tenant(0), "site 1 \"大阪\"\n", known(1));
        assert!(!state.is_dirty(), "remembered again as it was");
        state.retain(|_, site, _| site.starts_with("site 1"));
        assert!(state.is_dirty() && state.len() == 1);
        let snapshot = state.snapshot().unwrap();
        assert!(state.snapshot().is_none());
        state.unsaved();
        assert!(state.is_dirty());
        snapshot.write().unwrap();
        assert_eq!(State::load(dir.path()).0.len(), 1);
        state.retain(|_, _, _| false);
        assert!(state.is_empty());
    }

    #[test]
    fn a_file_that_makes_no_sense_is_kept_aside_and_the_hub_starts_without() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = filled(dir.path(), 12);
        assert!(state.save().unwrap());
        let whole = fs::read_to_string(dir.path().join(FILE)).unwrap();
        let last_line = whole.trim_end().rfind('\n').unwrap() + 1;
        let twice = format!("{whole}{}", &whole[last_line..]).replacen("\"sites\":12", "\"sites\":13", 1);
        let cases: [(&str, Vec<u8>, &str); 9] = [
            ("empty", Vec::new(), "is empty"),
            ("zeros, as a file system may leave", vec![0; 512], "line 1: "),
            ("no text", b"\xff\xfe".into(), "is no text"),
            ("a later version", b"{\"ekiden_peers\":2,\"sites\":0}\n".into(), "is of version 2"),
            ("cut between lines", whole[..last_line].into(), "should hold 12 sites and holds 11"),
            ("cut inside a line", whole[..whole.len() - 9].into(), "line 13: "),
            (
                "a short key",
                whole.replacen("\"public_key\":\"", "\"public_key\":\"AAAA", 1).into(),
                "32 bytes of base64",
            ),
            (
                "a large tenant",
                whole.replacen("\"tenant\":1,", "\"tenant\":16777216,", 1).into(),
                "does not fit 24 bits",
            ),
            ("a site twice", twice.into(), "line 14: this site was there before"),
        ];
        for (name, text, expected) in cases {
            fs::write(dir.path().join(FILE), &text).unwrap();
            let (state, warning) = State::load(dir.path());
            assert!(state.is_empty(), "{name}");
            let warning = warning.unwrap().to_string();
            assert!(warning.contains(expected) && warning.contains("peers.corrupt"), "{name}: {warning}");
            assert_eq!(fs::read(dir.path().join(CORRUPT)).unwrap(), text, "{name}");
            assert!(!dir.path().join(FILE).exists(), "{name}");
        }
    }

    #[test]
    fn a_full_disk_stops_nothing_and_harms_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::mount(dir.path(), "size=64k");
        let mut state = filled(dir.path(), 20);
        assert!(state.save().unwrap());
        let before = fs::read(dir.path().join(FILE)).unwrap();

        for n in 20..1000 {
            state.remember(tenant(500), &n.to_string(), known(n));
        }
        let error = state.save().unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::StorageFull, "{error}");
        assert!(state.is_dirty(), "still to be saved");
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), before, "the old file is whole");
        assert!(!dir.path().join(UNFINISHED).exists(), "and nothing takes its room");

        disk.remount("size=4m");
        assert!(state.save().unwrap());
        assert_eq!(State::load(dir.path()).0.len(), 1000);

        disk.remount("ro");
        state.remember(tenant(1), "one more", known(1));
        assert_eq!(state.save().unwrap_err().source.kind(), io::ErrorKind::ReadOnlyFilesystem);
        let (loaded, warning) = State::load(dir.path());
        assert_eq!((loaded.len(), warning), (1000, None));
    }

    #[test]
    fn ten_thousand_sites_are_saved_and_loaded_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = filled(dir.path(), 10_000);
        let start = std::time::Instant::now();
        let snapshot = state.snapshot().unwrap();
        let emitted = start.elapsed();
        let size = snapshot.text.len();
        snapshot.write().unwrap();
        let saved = start.elapsed();
        let start = std::time::Instant::now();
        let (again, warning) = State::load(dir.path());
        let loaded = start.elapsed();
        assert_eq!((again.len(), warning), (10_000, None));
        eprintln!("10,000 sites: {size} B, made in {emitted:?}, on disk after {saved:?}, loaded in {loaded:?}");
    }

    /// A small file system of its own, gone when the test is over.
    struct Disk<'a>(&'a Path);

    impl<'a> Disk<'a> {
        fn mount(at: &'a Path, options: &str) -> Self {
            Self::run(&["mount", "-t", "tmpfs", "-o", options, "ekiden-test"], at);
            Self(at)
        }

        fn remount(&self, options: &str) {
            Self::run(&["mount", "-o", &format!("remount,{options}")], self.0);
        }

        fn run(command: &[&str], at: &Path) {
            let done = std::process::Command::new(command[0]).args(&command[1..]).arg(at).status().unwrap();
            assert!(done.success(), "{command:?}");
        }
    }

    impl Drop for Disk<'_> {
        fn drop(&mut self) {
            Self::run(&["umount"], self.0);
        }
    }
}
