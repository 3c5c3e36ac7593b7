//! The hub: the `ekiden` binary, as a process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::client::Site;
use crate::lab::{Lab, Namespace};
use crate::process::Process;
use crate::wait::until;
use crate::world::{HUB_PORT, World};

/// The hub's name in its configuration; further hubs have their number behind it.
pub const NAME: &str = "lab";

/// Numbers the sockets on which hubs say that they are ready.
static NOTIFY: AtomicU32 = AtomicU32::new(0);

/// What may differ between the hubs of two tests.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Its ports; none: `d0` alone.
    pub ports: Vec<&'static str>,
    /// Cores of its workers; none: as the hub likes.
    pub cores: Option<Vec<usize>>,
    /// What an idle worker does; none: as the hub likes.
    pub idle: Option<&'static str>,
    /// Tenants whose hub has the addresses 10.9.0.1 and fd00:9::1.
    pub hub_addresses: Vec<u32>,
    /// Access ports besides.
    pub access_ports: Vec<&'static str>,
    /// Tenants' access ends: the tenant's id, and the lines below `[[tenant.access]]`.
    pub access: Vec<(u32, String)>,
    /// XDP in generic mode.
    pub generic: bool,
    /// More lines of tenants' sections.
    pub contracts: Vec<(u32, &'static str)>,
    /// Trunks: the lines below each `[[trunk]]`.
    pub trunks: Vec<String>,
    /// Where else prefixes are: the tenant's id, and the lines below `[[tenant.route]]`.
    pub routes: Vec<(u32, String)>,
}

/// A hub with its configuration.
#[derive(Debug)]
pub struct Hub {
    namespace: Namespace,
    name: String,
    log: (PathBuf, String),
    directory: PathBuf,
    pins: PathBuf,
    config: PathBuf,
    wrapper: Vec<String>,
    process: Option<Process>,
    systemd: Option<Systemd>,
}

impl Hub {
    /// Writes the configuration.
    pub fn new(lab: &Lab, world: &World, settings: &Settings, sites: &[&Site]) -> Result<Self> {
        // What tells it from the first hub, which has none.
        let number = world.name.trim_start_matches("hub");
        let text = configuration(&format!("{NAME}{number}"), world, settings, sites)?;
        Self::numbered(lab, &world.hub, number, &text)
    }

    /// A hub in this namespace with a configuration that is written elsewhere; its name in there is [`NAME`].
    pub fn with_configuration(lab: &Lab, namespace: &Namespace, text: &str) -> Result<Self> {
        Self::numbered(lab, namespace, "", text)
    }

    /// The same, of several; its name is [`NAME`] and the number.
    pub fn numbered(lab: &Lab, namespace: &Namespace, number: &str, text: &str) -> Result<Self> {
        let directory = lab.directory().join(number);
        fs::create_dir_all(&directory)?;
        let config = directory.join("hub.toml");
        fs::write(&config, text)?;
        Ok(Self {
            namespace: namespace.clone(),
            name: format!("{NAME}{number}"),
            log: (lab.directory().to_owned(), format!("hub{number}")),
            pins: lab.pins(),
            directory,
            config,
            wrapper: Vec::new(),
            process: None,
            systemd: None,
        })
    }

    /// A hub that runs, with sites that have started and have a session with it.
    pub fn with_sites(lab: &Lab, world: &World, settings: &Settings, sites: &mut [Site]) -> Result<Self> {
        let mut hub = Self::new(lab, world, settings, &sites.iter().collect::<Vec<_>>())?;
        hub.start()?;
        sites.iter_mut().try_for_each(Site::start)?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        Ok(hub)
    }

    /// Its configuration.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its files: the directories of its sockets, of what it remembers, and of its pins.
    pub fn places(&self) -> [PathBuf; 3] {
        [self.directory.join("run"), self.directory.join("state"), self.pins.clone()]
    }

    /// It will be started by this program, which must become the hub itself, as `strace -D` does.
    pub fn start_by(&mut self, words: &[&str]) {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Starts it, and waits until it says that it is ready.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.await_ready()
    }

    /// Starts it.
    pub fn spawn(&mut self) -> Result<()> {
        let path = self.directory.join(format!("notify-{}", NOTIFY.fetch_add(1, Ordering::Relaxed)));
        let systemd = Systemd::listen(&path)?;
        let [run, state] = ["run", "state"].map(|name| self.directory.join(name));
        let text = |path: &Path| path.display().to_string();
        let binary = text(binary()?);
        let (config, run, state, pins, notify) =
            (text(&self.config), text(&run), text(&state), text(&self.pins), text(&path));
        let mut words: Vec<&str> = self.wrapper.iter().map(String::as_str).collect();
        words.extend([binary.as_str(), "run", "--config", &config]);
        words.extend(["--run-dir", &run, "--state-dir", &state, "--pin-dir", &pins]);
        let (logs, log) = &self.log;
        let process = Process::start(logs, &self.namespace, log, &words, &[("NOTIFY_SOCKET", &notify)])?;
        self.systemd = Some(systemd);
        self.process = Some(process);
        Ok(())
    }

    /// Waits until it says that it is ready.
    pub fn await_ready(&self) -> Result<()> {
        let (process, systemd) = self.process.as_ref().zip(self.systemd.as_ref()).context("the hub was not started")?;
        until("the hub is ready", || {
            process.must_be_alive().context("the hub")?;
            Ok(systemd.was_told("READY=1").then_some(()))
        })
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the hub was not started")
    }

    /// Ends it in order.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let status = self.process.take().context("the hub was not started")?.stop(Signal::TERM)?;
        let systemd = self.systemd.take().context("the hub was not started")?;
        until("the hub has said that it stops", || Ok(systemd.was_told("STOPPING=1").then_some(())))?;
        Ok(status)
    }

    /// Ends it without a word.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.take().context("the hub was not started")?.stop(Signal::KILL)
    }

    /// Ends it in order, and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        let status = self.stop()?;
        anyhow::ensure!(status.success(), "the hub ended with {status}");
        self.start()
    }

    /// Runs another command of the binary in the hub's namespace.
    pub fn ekiden(&self, words: &[&str]) -> Result<Output> {
        Ok(self.namespace.command(binary()?).args(words).output()?)
    }

    /// What `ekiden status` prints.
    pub fn status_text(&self) -> Result<String> {
        self.ask(&[])
    }

    /// What `ekiden status --json` tells.
    pub fn status(&self) -> Result<Status> {
        Ok(Status(serde_json::from_str(&self.ask(&["--json"])?)?))
    }

    /// What the hub answers to a request to change something, whole.
    pub fn change(&self, path: &str) -> Result<String> {
        let mut stream = UnixStream::connect(self.places()[0].join(&self.name).join("control.sock"))?;
        write!(stream, "POST {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Writes another configuration in the place of what it has, and what `ekiden reload` makes of it.
    pub fn reload(&self, text: &str) -> Result<Output> {
        fs::write(&self.config, text)?;
        let run = self.directory.join("run").display().to_string();
        self.ekiden(&["reload", "--run-dir", &run])
    }

    /// As [`Hub::reload`], and it must be taken; what it says.
    pub fn must_reload(&self, text: &str) -> Result<String> {
        let output = self.reload(text)?;
        anyhow::ensure!(output.status.success(), "ekiden reload: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let run = self.directory.join("run").display().to_string();
        let output = self.ekiden(&[&["status", "--run-dir", &run], words].concat())?;
        if !output.status.success() {
            bail!("ekiden status: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Waits until the hub is at rest, and its books close: of what came all is gone or found under way, no chunk is
    /// lost, and XDP gave each frame one end.
    pub fn balance(&self) -> Result<Status> {
        let mut last = Vec::new();
        let balanced = until("the books close", || {
            let status = self.status()?;
            last = status.books()?.into_iter().filter(|account| account.came != account.went).collect();
            Ok(last.is_empty().then_some(status))
        });
        balanced.with_context(|| format!("{last:#?}"))
    }

    /// Exactly these drops since `before`, and no other: waited for, since what is on its way is not counted yet.
    pub fn must_have_dropped(&self, before: &Status, expected: &[(&str, u64)]) -> Result<()> {
        let expected: BTreeMap<String, u64> =
            expected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        let mut last = BTreeMap::new();
        let result = crate::wait::until_true("the drops are counted", || {
            last = self.status()?.drops_since(before);
            Ok(last.values().sum::<u64>() >= expected.values().sum())
        });
        anyhow::ensure!(result.is_ok() && last == expected, "dropped {last:?}, expected {expected:?}");
        Ok(())
    }

    /// At least so many drops for a reason since `before`: waited for.
    pub fn must_have_dropped_at_least(&self, before: &Status, reason: &str, count: u64) -> Result<()> {
        let mut last = BTreeMap::new();
        let result = crate::wait::until_true(reason, || {
            last = self.status()?.drops_since(before);
            Ok(last.get(reason) >= Some(&count))
        });
        result.with_context(|| format!("dropped {last:?}"))
    }

    /// Takes the XDP programs off the ports.
    pub fn detach(&self) -> Result<String> {
        let pins = self.pins.display().to_string();
        let output = self.ekiden(&["detach", "--hub", &self.name, "--pin-dir", &pins])?;
        anyhow::ensure!(output.status.success(), "ekiden detach: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Waits until the hub has a session with each of these sites. Those that can are made to speak first.
    pub fn await_sessions(&self, sites: &[&Site]) -> Result<()> {
        for site in sites {
            // A client that finds its handshake lost begins another only seconds later, unless it has something to say.
            let mut asked = 0;
            until(&format!("a session with {}", site.label()), || {
                if self.status()?.site(site)?["session"] == "live" {
                    return Ok(Some(()));
                }
                if site.plan.first != crate::First::Hub && asked % 20 == 0 {
                    site.speak()?;
                }
                asked += 1;
                Ok(None)
            })?;
        }
        Ok(())
    }
}

/// What systemd would hear.
#[derive(Debug)]
struct Systemd(Arc<Mutex<Vec<String>>>);

impl Systemd {
    fn listen(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let weak = Arc::downgrade(&heard);
        // As systemd does, it always reads: a full socket would stop who writes. It ends when nobody asks any more.
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Some(heard) = weak.upgrade() {
                let Ok(length) = socket.recv(&mut message) else { continue };
                let text = String::from_utf8_lossy(&message[..length]);
                heard.lock().unwrap_or_else(PoisonError::into_inner).extend(text.lines().map(str::to_owned));
            }
        });
        Ok(Self(heard))
    }

    fn was_told(&self, line: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|told| told == line)
    }
}

/// One line of the hub's books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What came.
    pub came: u64,
    /// What went.
    pub went: u64,
    /// What was added up.
    pub text: String,
}

/// The report of a hub.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Status {
    /// What it says of a site.
    pub fn site(&self, site: &Site) -> Result<&Value> {
        let tenants = self.0["tenants"].as_array().context("tenants")?;
        let tenant = tenants.iter().find(|tenant| tenant["id"] == site.plan.tenant).context("the site's tenant")?;
        let sites = tenant["sites"].as_array().context("sites")?;
        sites.iter().find(|found| found["name"] == *site.plan.name).with_context(|| format!("no site {}", site.label()))
    }

    /// A number that it tells of a site.
    pub fn of_site(&self, site: &Site, field: &str) -> Result<u64> {
        self.site(site)?[field].as_u64().with_context(|| format!("{field} of {}", site.label()))
    }

    /// The lanes of all trunks by their names, `TRUNK/0` and so on, and whether they are up.
    pub fn lanes(&self) -> Result<Vec<(String, bool)>> {
        let mut all = Vec::new();
        for trunk in self.0["trunks"].as_array().context("trunks")? {
            let name = trunk["name"].as_str().context("a trunk's name")?;
            for (number, lane) in trunk["lanes"].as_array().context("lanes")?.iter().enumerate() {
                all.push((format!("{name}/{number}"), lane["up"] == true));
            }
        }
        Ok(all)
    }

    /// A number that it tells of what a trunk carries of a tenant, if it carries any of it.
    pub fn carried(&self, tenant: u64, trunk: &str, field: &str) -> Option<u64> {
        let tenants = self.0["tenants"].as_array()?;
        let sites = tenants.iter().find(|found| found["id"] == tenant)?["sites"].as_array()?;
        sites.iter().find(|end| end["name"] == format!("trunk:{trunk}"))?[field].as_u64()
    }

    /// Dropped packets by reason.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let rows = self.0["drops"].as_array().into_iter().flatten();
        rows.filter_map(|row| Some((row["reason"].as_str()?.to_owned(), row["packets"].as_u64()?))).collect()
    }

    /// The hub's books. While packets move, more has come than went; at rest, both sides are equal.
    pub fn books(&self) -> Result<Vec<Account>> {
        let account = |what: String, of: &Value, came: &[&str], went: &[&str]| -> Result<Account> {
            let sum = |names: &[&str]| -> Result<u64> {
                names.iter().map(|name| of[name].as_u64().with_context(|| format!("{name} of {what}"))).sum()
            };
            let text = format!("{what}: {} against {}: {of}", came.join(" + "), went.join(" + "));
            Ok(Account { came: sum(came)?, went: sum(went)?, text })
        };
        let books = &self.0["books"];
        let came = ["received", "generated", "reassembled"];
        let went = ["completed", "to_control", "keepalives", "dropped"];
        let under_way = ["staged", "sending"];
        let mut all = vec![
            account("packets".into(), books, &came, &[&went[..], &under_way].concat())?,
            account("chunks".into(), books, &["chunks"], &[&["free", "receiving"][..], &under_way].concat())?,
        ];
        for port in self.0["ports"].as_array().context("ports")? {
            let went = ["xdp_passed", "xdp_dropped", "ring_lost", "rx_frames"];
            all.push(account(format!("port {}", port["name"]), port, &["xdp_seen"], &went)?);
        }
        Ok(all)
    }

    /// What can be said of the books of a hub at work: nothing went that did not come. What is under way is left out,
    /// because it is counted at another moment.
    pub fn overdrawn(&self) -> Result<Vec<Account>> {
        let mut all = self.books()?;
        let books = &self.0["books"];
        let under_way = books["staged"].as_u64().context("staged")? + books["sending"].as_u64().context("sending")?;
        all[0].went -= under_way;
        all.remove(1);
        Ok(all.into_iter().filter(|account| account.came < account.went).collect())
    }

    /// What was dropped since an earlier report.
    pub fn drops_since(&self, earlier: &Self) -> BTreeMap<String, u64> {
        let before = earlier.drops();
        let since = |(reason, packets): (String, u64)| {
            let more = packets - before.get(&reason).copied().unwrap_or(0);
            (reason, more)
        };
        self.drops().into_iter().map(since).filter(|(_, packets)| *packets > 0).collect()
    }
}

fn configuration(name: &str, world: &World, settings: &Settings, sites: &[&Site]) -> Result<String> {
    let mut text = format!("[hub]\nname = \"{name}\"\nprivate_key_file = \"{}\"\n", world.key.private.display());
    writeln!(text, "listen_port = {HUB_PORT}")?;
    if settings.cores.is_some() || settings.idle.is_some() {
        writeln!(text, "\n[workers]")?;
    }
    if let Some(idle) = settings.idle {
        writeln!(text, "idle = {idle:?}")?;
    }
    if let Some(cores) = &settings.cores {
        writeln!(text, "cores = {cores:?}")?;
    }
    let default = vec!["d0"];
    for port in if settings.ports.is_empty() { &default } else { &settings.ports } {
        writeln!(text, "\n[[port]]\nname = \"{port}\"\nrole = \"wan\"")?;
        if settings.generic {
            writeln!(text, "mode = \"generic\"")?;
        }
    }
    for port in &settings.access_ports {
        writeln!(text, "\n[[port]]\nname = \"{port}\"\nrole = \"access\"")?;
    }
    for lines in &settings.trunks {
        writeln!(text, "\n[[trunk]]\n{lines}")?;
    }
    let mut tenants: Vec<u32> = sites.iter().map(|site| site.plan.tenant).collect();
    tenants.extend(settings.access.iter().chain(&settings.routes).map(|(tenant, _)| tenant));
    tenants.sort_unstable();
    tenants.dedup();
    for tenant in tenants {
        writeln!(text, "\n[[tenant]]\nid = {tenant}\nservice_code = \"WAN{tenant:08}\"\nlabel = \"Tenant {tenant}\"")?;
        if settings.hub_addresses.contains(&tenant) {
            writeln!(text, "hub_addresses = [\"10.9.0.1\", \"fd00:9::1\"]")?;
        }
        for (_, lines) in settings.contracts.iter().filter(|(of, _)| *of == tenant) {
            writeln!(text, "{lines}")?;
        }
        for site in sites.iter().filter(|site| site.plan.tenant == tenant) {
            writeln!(text, "\n{}", site.hub_section())?;
        }
        for (_, lines) in settings.access.iter().filter(|(of, _)| *of == tenant) {
            writeln!(text, "\n[[tenant.access]]\n{lines}")?;
        }
        for (_, lines) in settings.routes.iter().filter(|(of, _)| *of == tenant) {
            writeln!(text, "\n[[tenant.route]]\n{lines}")?;
        }
    }
    Ok(text)
}

/// The `ekiden` binary: `$EKIDEN_BIN`, or the one that belongs to this test, built if it is not up to date.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find_binary().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("EKIDEN_BIN") {
        return fs::canonicalize(&path).with_context(|| format!("EKIDEN_BIN={}", path.display()));
    }
    // TARGET/PROFILE/demo, or TARGET/PROFILE/deps/some_test-0123.
    let mut directory = std::env::current_exe()?;
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    let profile = directory.file_name().and_then(|name| name.to_str()).context("the directory of a profile")?;
    let profile = if profile == "debug" { "dev" } else { profile };
    let target = directory.parent().context("a target directory")?;
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "ekiden-dataplane", "--bin", "ekiden", "--profile", profile]);
    cargo.args(["--manifest-path", manifest]).arg("--target-dir").arg(target);
    crate::lab::run(&mut cargo)?;
    Ok(directory.join("ekiden"))
}
