//! `ekiden exporter` as a process of a user without any rights, asked over TCP, and judged by Prometheus' own tool.

use stats::{Segment, Shape, Spec};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use wire::{DropReason, PortIndex, SiteSlot, TenantId, TenantSlot};

/// Longer than anything takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
/// A group that nobody is in.
const GROUP: u32 = 54321;

/// The exporter, and each line that it logs.
struct Exporter {
    process: Child,
    address: SocketAddr,
    lines: Receiver<String>,
}

impl Exporter {
    /// As the user nobody, in one group more.
    fn start(directory: &Path, words: &[&str]) -> Self {
        Self::start_at(directory, "127.0.0.1:0", words)
    }

    /// The same, at an address.
    fn start_at(directory: &Path, listen: &str, words: &[&str]) -> Self {
        // Where anyone may execute it, wherever it was built.
        let binary = directory.join("ekiden");
        if !binary.exists() && fs::hard_link(env!("CARGO_BIN_EXE_ekiden"), &binary).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_ekiden"), &binary).unwrap();
        }
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--reuid=65534", "--regid=65534"]).arg(format!("--groups={GROUP}"));
        command.args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"]).arg(&binary);
        command.args(["exporter", "--listen", listen]).args(words).env_remove("EKIDEN_LOG");
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, lines) = channel();
        let stderr = process.stderr.take().unwrap();
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| out.send(line))
        });
        let first = lines.recv_timeout(PATIENCE).unwrap();
        let address = first.split_once("address=").unwrap_or_else(|| panic!("{first}")).1.trim().parse().unwrap();
        Self { process, address, lines }
    }

    /// Head and body of the answer.
    fn get(&self, path: &str, accept: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\nAccept: {accept}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    }

    fn metrics(&self) -> String {
        let (head, body) = self.get("/metrics", "*/*");
        assert!(head.contains(" 200 ") && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        body
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A hub whose labels are as bad as they can be, and that has counted something everywhere.
fn segment(path: &Path) -> Segment {
    let shape = Shape { tenants: 3, sites: 5, ports: 1, ..Shape::default() };
    let (hub, build) = ("tokyo-1".to_owned(), "1.2.3".to_owned());
    let spec = Spec { hub, build, config_hash: 1, shape, room: shape, workers: 1, memory: 1 << 20, group: Some(GROUP) };
    let mut segment = Segment::create(path, spec).unwrap().segment;
    segment.configure(|directory| {
        let all: String = ('\u{1}'..'\u{100}').collect();
        for (slot, code, label) in [
            (0, "WAN\"} 1\nekiden_up{x=\"", "quotes \" and \\\" and \\"),
            (1, "駅\u{1b}[31m\\", "lines\n# TYPE ekiden_up counter\r\nekiden_up 7\n# EOF\n"),
            (2, "{}=,\t ", &*all),
        ] {
            directory.tenant(TenantSlot(slot), TenantId::new(u64::from(slot) + 1).unwrap(), code, label).unwrap();
        }
        directory.site(SiteSlot(0), TenantSlot(0), "\\").unwrap();
        directory.site(SiteSlot(1), TenantSlot(0), "\\\"\n\u{7f}\u{85}").unwrap();
        directory.carried(SiteSlot(2), TenantSlot(0), "\"}\n/").unwrap();
        directory.lane(SiteSlot(3), "\"}\n/", 0).unwrap();
        directory.lane(SiteSlot(4), "osaka", 0).unwrap();
        directory.port(PortIndex(0), "wan0", 1, 2048).unwrap();
        directory.worker(0, 0, 4096).unwrap();
    });
    let rows = segment.rows(0);
    rows.tenant(TenantSlot(1)).count(DropReason::NoRoute, 100);
    rows.latency.record(20_000, 3);
    let control = segment.control_rows();
    control.site(SiteSlot(0)).last_handshake_at.set(1);
    let lane = control.site(SiteSlot(3));
    let fields = [&lane.rtt_us, &lane.jitter_us, &lane.probes_sent, &lane.since_ns, &lane.mtu, &lane.last_handshake_at];
    fields.into_iter().chain([&control.hub.paths]).for_each(|field| field.set(1));
    segment.publish().unwrap();
    segment
}

/// What `promtool` says of an answer; nothing is what it says of a good one.
fn promtool(metrics: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool, of the Debian package prometheus");
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

#[test]
fn nobody_shows_a_hub_whose_names_are_hostile() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let path = directory.path().join("stats");
    let exporter = Exporter::start(directory.path(), &["--stats", path.to_str().unwrap()]);

    // Nothing to read yet: it answers all the same, and logs it once however often it is asked.
    for _ in 0..3 {
        let metrics = exporter.metrics();
        assert!(
            metrics.contains("\nekiden_up 0\n") && metrics.contains("\nprocess_resident_memory_bytes "),
            "{metrics}"
        );
        assert_eq!(promtool(&metrics), "");
    }
    let segment = segment(&path);
    let metrics = exporter.metrics();
    assert!(metrics.contains("\nekiden_up 1\n"), "{metrics}");
    assert!(metrics.contains("\nekiden_tenant_info{") && metrics.contains("\nekiden_worker_latency_seconds_bucket{"));
    assert!(metrics.contains("\nekiden_lane_rtt_seconds{") && metrics.contains("\nekiden_paths{"), "{metrics}");
    assert_eq!(metrics.matches("\nekiden_up ").count(), 1, "a label wrote a line of its own");
    assert_eq!(promtool(&metrics), "");
    let logged = exporter.lines.recv_timeout(PATIENCE).unwrap();
    assert!(logged.contains("WARN") && logged.contains("could not open"), "{logged}");
    let logged = exporter.lines.recv_timeout(PATIENCE).unwrap();
    assert!(logged.contains("can be read again"), "{logged}");

    let (head, body) = exporter.get("/metrics", "application/openmetrics-text; version=1.0.0");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with("\n# EOF\n") && body.matches("# EOF\n").count() == 1, "{body}");
    assert!(exporter.get("/nothing", "*/*").0.contains(" 404 "));

    // A file that its group may not read is not read by nobody.
    drop(segment);
    let new = directory.path().join("closed");
    fs::copy(&path, &new).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, &path).unwrap();
    assert!(exporter.metrics().contains("\nekiden_up 0\n"));
    let logged = exporter.lines.recv_timeout(PATIENCE).unwrap();
    assert!(logged.contains("Permission denied"), "{logged}");
    assert!(exporter.lines.try_recv().is_err(), "it said more than it had to");
}

#[test]
fn it_starts_again_where_it_was_and_says_once_what_it_leaves_out() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let path = directory.path().join("stats");
    let _segment = segment(&path);
    let words = ["--stats", path.to_str().unwrap(), "--max-series", "1"];
    let mut exporter = Exporter::start(directory.path(), &words);
    for _ in 0..2 {
        for _ in 0..3 {
            let metrics = exporter.metrics();
            assert!(metrics.contains("\nekiden_up 1\n") && !metrics.contains("\nekiden_tenant_info"), "{metrics}");
        }
        let logged = exporter.lines.recv_timeout(PATIENCE).unwrap();
        assert!(logged.contains("WARN") && logged.contains("--max-series"), "{logged}");
        assert!(exporter.lines.try_recv().is_err(), "it said more than it had to");
        // Connections that it has closed are remembered at its address for a minute, and are not in the way.
        let address = exporter.address.to_string();
        drop(exporter);
        exporter = Exporter::start_at(directory.path(), &address, &words);
        assert_eq!(exporter.address.to_string(), address);
    }
}

/// Whether the other side has ended the connection, or is about to: it has answered what was no request.
fn is_over(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn who_says_nothing_keeps_nobody_out_for_long() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let path = directory.path().join("stats");
    let exporter = Exporter::start(directory.path(), &["--stats", path.to_str().unwrap()]);
    // As many as are served at a time: some are silent, some begin and never end.
    let mute: Vec<TcpStream> = (0..16)
        .map(|n| {
            let mut stream = TcpStream::connect(exporter.address).unwrap();
            if n % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-").unwrap();
            }
            stream
        })
        .collect();
    let metrics = exporter.metrics();
    assert!(metrics.contains("\nekiden_up 0\n"), "{metrics}");
    assert!(mute.iter().any(is_over), "more are served at a time than there is room for");

    // And a head that has no end is not kept in memory.
    let mut endless = TcpStream::connect(exporter.address).unwrap();
    endless.set_read_timeout(Some(PATIENCE)).unwrap();
    endless.write_all(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(9_000)).as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = endless.read_to_end(&mut answer); // what was not read may make a reset of the end
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains(" 431 "), "{answer}");
}
