//! A lab: network namespaces, the wires between them, and a directory for files. All of it goes with the lab.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;
use std::os::fd::{AsFd, OwnedFd};

use crate::leftovers::{self, BPFFS, INTERFACE_PREFIX, NAMESPACES, PREFIX, Thing};

/// Lines of each log that are shown when a test fails.
const TAIL: usize = 40;

/// A lab. Dropped after what runs in it, it removes what it has made.
#[derive(Debug)]
pub struct Lab {
    name: String,
    directory: PathBuf,
    things: Vec<Thing>,
    interfaces: Cell<u32>,
}

impl Lab {
    /// An empty lab.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        leftovers::prepare()?;
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = Path::new("/tmp").join(&name);
        let mut lab = Self { name, directory: directory.clone(), things: Vec::new(), interfaces: Cell::new(0) };
        lab.keep(Thing::Directory(directory.clone()));
        lab.keep(Thing::Directory(lab.pins()));
        fs::create_dir(&directory).with_context(|| format!("{}", directory.display()))?;
        // In memory, as `/run` is where hubs run: the pages of a file on a disk are written back, and while they are, who counts in them
        // waits for the disk.
        lab.mount(directory, "size=4g,mode=755")?;
        Ok(lab)
    }

    fn mount(&mut self, path: PathBuf, options: &str) -> Result<()> {
        self.keep(Thing::Mount(path.clone()));
        let options = std::ffi::CString::new(options)?;
        rustix::mount::mount("ekiden-test", &path, "tmpfs", rustix::mount::MountFlags::empty(), options.as_c_str())
            .with_context(|| format!("a tmpfs on {}", path.display()))
    }

    fn keep(&mut self, thing: Thing) {
        leftovers::note(thing.clone());
        self.things.push(thing);
    }

    /// The lab's own directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A small file system of its own in the lab's directory, of this size; other options may follow after a comma.
    pub fn disk(&mut self, name: &str, size: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::create_dir(&path)?;
        self.mount(path.clone(), &format!("size={size}"))?;
        Ok(path)
    }

    /// A directory on bpffs for a hub's pins; the hub makes it.
    pub fn pins(&self) -> PathBuf {
        Path::new(BPFFS).join(&self.name)
    }

    /// A new network namespace with its loopback up, which neither forwards nor filters by reverse path.
    pub fn namespace(&mut self, role: &str) -> Result<Namespace> {
        let name = format!("{}-{role}", self.name);
        self.keep(Thing::Namespace(name.clone()));
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let path = Path::new(NAMESPACES).join(&name);
        let handle = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let namespace = Namespace { name, handle: Rc::new(handle) };
        namespace.ip("link set lo up")?;
        namespace.sysctl("net.ipv4.ip_forward", "0")?;
        for which in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv4.conf.{which}.rp_filter"), "0")?;
            // Addresses are unique here: nobody has to wait until that is proved.
            namespace.sysctl(&format!("net.ipv6.conf.{which}.accept_dad"), "0")?;
            // A new MAC address is announced.
            namespace.sysctl(&format!("net.ipv4.conf.{which}.arp_notify"), "1")?;
            namespace.sysctl(&format!("net.ipv6.conf.{which}.ndisc_notify"), "1")?;
        }
        Ok(namespace)
    }

    /// A wire between two namespaces, with so many queues at each end, up.
    pub fn wire(&self, a: (&Namespace, &str), b: (&Namespace, &str), queues: u32) -> Result<()> {
        let ((a, at), (b, bt)) = (a, b);
        let count = format!("numrxqueues {queues} numtxqueues {queues}");
        a.ip(&format!("link add {at} {count} type veth peer name {bt} {count} netns {}", b.name))?;
        a.ip(&format!("link set {at} up"))?;
        b.ip(&format!("link set {bt} up"))
    }

    /// A name for an interface that no other lab on this machine uses: some clients put it into a directory that all share.
    pub fn interface(&self) -> String {
        self.interfaces.set(self.interfaces.get() + 1);
        let lab = self.name.rsplit('-').next().unwrap_or_default();
        format!("{INTERFACE_PREFIX}{}-{lab}-{}", std::process::id(), self.interfaces.get())
    }

    /// What the programs of this lab have said last, for whoever looks for the reason of a failure.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let mut files: Vec<PathBuf> = fs::read_dir(&self.directory)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.sort();
        for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
            let log = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = log.lines().collect();
            text.push_str(&format!("---- {}\n", path.file_name().unwrap_or_default().to_string_lossy()));
            for line in &lines[lines.len().saturating_sub(TAIL)..] {
                text.push_str(&format!("     {line}\n"));
            }
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for thing in self.things.iter().rev() {
            thing.remove();
            leftovers::forget(thing);
        }
    }
}

/// Runs a test in a lab of its own. If it fails, what the lab's programs said last is shown.
pub fn test(body: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let mut lab = Lab::new()?;
    let result = body(&mut lab);
    if result.is_err() {
        eprintln!("{}", lab.logs());
    }
    result
}

/// A network namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    handle: Rc<OwnedFd>,
}

impl Namespace {
    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in it. Unlike `ip netns exec`, this leaves the mounts alone: bpffs stays in sight.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={NAMESPACES}/{}", self.name)).arg("--").arg(program);
        command
    }

    /// Runs a program in it, which must succeed, and gives what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.command(program).args(arguments))
    }

    /// Runs `ip` in it; the arguments are separated by single spaces.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split(' '))).map(drop)
    }

    /// Sets a kernel parameter of the namespace.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        self.inside(|| fs::write(&path, value))?.with_context(|| format!("{name} = {value}"))
    }

    /// Runs a closure on a thread that is in the namespace: a socket that it makes stays there.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        let handle = self.handle.as_fd();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                rustix::thread::move_into_link_name_space(handle, Some(LinkNameSpaceType::Network))?;
                Ok::<T, rustix::io::Errno>(act())
            });
            match thread.join() {
                Ok(result) => result.with_context(|| format!("could not enter the namespace {}", self.name)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// The MAC address of one of its interfaces.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        let text = run(Command::new("ip").args(["-n", &self.name, "-j", "link", "show", interface]))?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let mac = links[0]["address"].as_str().context("a link has an address")?;
        let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
        bytes.try_into().ok().context("a MAC address has six bytes")
    }
}

/// Runs a command, which must succeed, and gives what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    succeeded(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn succeeded(command: &Command, output: &Output) -> Result<()> {
    if !output.status.success() {
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{command:?} ended with {}: {out}{error}", output.status);
    }
    Ok(())
}
