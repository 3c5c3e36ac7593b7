//! Real sockets in a directory of their own; control is a task that answers as the test says.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::client::{ClientError, StatusArgs, find_hub, get, post, status_command};
use super::*;
use crate::status::{Hub, Tenant};

/// A hub that has nothing but its API: control answers with `report`, and knows site "a" of tenant 1001 alone.
struct FakeHub {
    api: Api,
    dir: RunDir,
    control: Option<JoinHandle<()>>,
}

impl FakeHub {
    fn start(root: &Path, name: &str) -> Self {
        let (requests, mut inbox) = mpsc::channel(QUEUE);
        let report = report(name);
        let control = std::thread::spawn(move || {
            while let Some(request) = inbox.blocking_recv() {
                answer(request, &report);
            }
        });
        let dir = RunDir::claim(root, name).unwrap();
        let api = Api::start(&dir, requests).unwrap();
        Self { api, dir, control: Some(control) }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn stop(mut self) {
        drop(self.api);
        // The API held the only way to control, so control's queue has ended.
        self.control.take().unwrap().join().unwrap();
    }
}

fn report(name: &str) -> Status {
    Status {
        hub: Hub { name: name.into(), pid: std::process::id(), ..Hub::default() },
        tenants: vec![
            Tenant {
                id: 1001,
                service_code: Some("WAN00001001".into()),
                label: Some("大阪".into()),
                ..Tenant::default()
            },
            Tenant { id: 1002, ..Tenant::default() },
        ],
        ..Status::default()
    }
}

fn answer(request: Request, report: &Status) {
    match request {
        Request::Status(reply) => drop(reply.send(report.clone())),
        Request::Health(reply) => drop(reply.send(())),
        Request::Reload(reply) => drop(reply.send(crate::status::Reload {
            at: "2026-07-01T09:00:00+09:00".into(),
            applied: &*report.hub.name != "broken",
            text: if &*report.hub.name == "broken" { "a:1: bad\nb:2: worse".into() } else { "1 site added".into() },
        })),
        Request::Handshake { tenant, site, reply } => {
            let outcome = match (tenant.map(TenantId::as_u32), site.as_str()) {
                (Some(1001), "a / 大阪") | (None, "osaka/3") => Ok(()),
                (Some(1001), "silent") => Err(Refused::NoEndpoint),
                (Some(1001), "hasty") => Err(Refused::TooSoon),
                (Some(1001), _) => Err(Refused::UnknownSite),
                (None, _) => Err(Refused::UnknownLane),
                _ => Err(Refused::UnknownTenant),
            };
            reply.send(outcome).unwrap_or_default();
        }
        Request::Move { site, worker, reply, .. } => drop(reply.send(match (site.as_str(), worker) {
            ("a", 0..2) => Ok(()),
            ("a", _) => Err(Refused::UnknownWorker),
            _ => Err(Refused::NothingShared),
        })),
    }
}

/// Bytes in, bytes out, until the hub closes the connection.
fn raw(socket: &Path, request: &[u8]) -> String {
    let mut stream = StdStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(HEAD_TIMEOUT * 2)).unwrap();
    // The hub may close before it has read all of a request that it refuses.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8(answer).unwrap()
}

fn line(method: &str, path: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_directory_on_a_disk_is_told_from_one_in_memory() {
    assert_eq!(rundir::on_a_disk(Path::new("/dev/shm")), None);
    let warning = rundir::on_a_disk(Path::new("/proc")).expect("no tmpfs");
    assert!(warning.starts_with("/proc is not in memory") && warning.ends_with("mount a tmpfs there"), "{warning}");
}

#[test]
fn directory_and_sockets_are_for_the_hub_and_its_group_only() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("ekiden");
    let hub = FakeHub::start(&root, "lab");
    assert_eq!(mode(&root), 0o755);
    assert_eq!(mode(hub.dir.path()), 0o750);
    assert_eq!(mode(&hub.socket(API_SOCKET)), 0o660);
    assert_eq!(mode(&hub.socket(CONTROL_SOCKET)), 0o600);
    assert_eq!(mode(&hub.socket("lock")), 0o640);
    let (api, control) = (hub.socket(API_SOCKET), hub.socket(CONTROL_SOCKET));
    hub.stop();
    assert!(!api.exists() && !control.exists(), "an ended hub leaves no socket");
}

#[test]
fn a_name_belongs_to_one_process_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(root.path(), "lab");
    let before = fs::metadata(hub.socket(API_SOCKET)).unwrap().ino();
    let error = RunDir::claim(root.path(), "lab").unwrap_err().to_string();
    assert_eq!(error, format!("hub lab is already running, pid {}", std::process::id()));
    assert_eq!(fs::metadata(hub.socket(API_SOCKET)).unwrap().ino(), before, "the live socket is untouched");
    RunDir::claim(root.path(), "other").expect("another name is free");
    hub.stop();
    RunDir::claim(root.path(), "lab").expect("and so is this one now");
}

#[test]
fn what_a_killed_hub_left_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("lab");
    fs::create_dir(&dir).unwrap();
    // A socket on which nobody listens any more, and a lock that nobody holds.
    drop(std::os::unix::net::UnixListener::bind(dir.join(API_SOCKET)).unwrap());
    fs::write(dir.join("lock"), "4194304999\n").unwrap();
    assert!(matches!(find_hub(root.path(), None), Err(ClientError::NoHub(_))));

    let hub = FakeHub::start(root.path(), "lab");
    assert_eq!(fs::read_to_string(dir.join("lock")).unwrap(), format!("{}\n", std::process::id()));
    get::<serde_json::Value>(&hub.socket(API_SOCKET), "/v1/health").unwrap();
    hub.stop();
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    let root = tempfile::tempdir().unwrap();
    for name in ["", "..", ".hidden", "a/b", "a b", "a\n", "大阪", &"x".repeat(65)] {
        assert!(matches!(RunDir::claim(root.path(), name), Err(RunDirError::Name(_))), "{name:?}");
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    let long = root.path().join("x".repeat(100));
    let dir = RunDir::claim(&long, "lab").unwrap();
    let error = dir.listen(API_SOCKET, 0o660).unwrap_err().to_string();
    assert!(error.contains("could not listen on") && error.contains("File name too long"), "{error}");
}

#[test]
fn the_read_only_socket_tells() {
    let root = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(root.path(), "lab");
    let socket = hub.socket(API_SOCKET);
    assert_eq!(get::<Status>(&socket, "/v1/status").unwrap(), report("lab"));
    assert_eq!(get::<serde_json::Value>(&socket, "/v1/health").unwrap(), serde_json::json!({ "status": "ok" }));
    let reasons: Vec<Reason> = get(&socket, "/v1/drops").unwrap();
    assert_eq!(reasons.len(), DROP_REASONS.len());
    for (told, reason) in reasons.iter().zip(DROP_REASONS) {
        assert_eq!((told.number, &*told.name, &*told.doc), (*reason as u8, reason.name(), reason.doc()));
    }
    hub.stop();
}

#[test]
fn bad_requests_get_an_error_in_json() {
    let root = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(root.path(), "lab");
    let (api, control) = (hub.socket(API_SOCKET), hub.socket(CONTROL_SOCKET));
    let start = "/v1/sites/1001/a/handshake";
    let with_body =
        b"POST /v1/sites/1001/a/handshake HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let large = [
        b"POST /v1/sites/1001/a/handshake HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9000\r\n\r\n"
            .as_slice(),
        &[b'x'; 9000],
    ]
    .concat();
    let worker = "the hub has no worker of this number; they are numbered from 0";
    let shared = "no port has a queue that workers share, so the NIC decides who receives what";
    let lane = "the hub has no trunk of this name with a lane of this number; they are numbered from 0";
    let cases: [(&Path, Vec<u8>, &str, &str); 16] = [
        (&api, line("GET", "/"), "404", "no such path: /"),
        (&api, line("GET", "/v1/../etc/passwd"), "404", "no such path: /v1/../etc/passwd"),
        (&api, line("POST", "/v1/status"), "405", "POST is not for /v1/status"),
        (&api, line("POST", start), "404", "no such path: /v1/sites/1001/a/handshake"),
        (&control, line("GET", "/v1/status"), "404", "no such path: /v1/status"),
        (&control, line("GET", start), "405", "GET is not for /v1/sites/1001/a/handshake"),
        (&control, line("POST", "/v1/sites/16777216/a/handshake"), "404", "a tenant's id is a number below 16777216"),
        (&control, line("POST", "/v1/sites/7/a/handshake"), "404", "no tenant has this id"),
        (&control, line("POST", "/v1/sites/1001/z/handshake"), "404", "the tenant has no site of this name"),
        (&control, line("POST", "/v1/trunks/osaka/4/handshake"), "404", lane),
        (&api, line("POST", "/v1/sites/1001/a/worker/1"), "404", "no such path: /v1/sites/1001/a/worker/1"),
        (&control, line("POST", "/v1/sites/1001/a/worker/2"), "404", worker),
        (&control, line("POST", "/v1/sites/1001/a/worker/-1"), "404", worker),
        (&control, line("POST", "/v1/sites/1001/b/worker/1"), "409", shared),
        (&control, with_body.into(), "400", "this request takes no body"),
        (&control, large, "413", "this request takes no body, and this one is large"),
    ];
    for (socket, request, code, error) in cases {
        let name = String::from_utf8_lossy(&request[..60.min(request.len())]).into_owned();
        let answer = raw(socket, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{name}: {answer}");
        assert!(answer.contains("content-type: application/json"), "{name}: {answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(body).unwrap(),
            serde_json::json!({ "error": error }),
            "{name}"
        );
    }
    // What is no HTTP at all, or too much of it, gets no more than a status and a closed connection.
    assert!(raw(&api, b"\x16\x03\x01\x02\x00\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let head = format!("GET /v1/health HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(4 * HEAD_BYTES));
    assert!(raw(&api, head.as_bytes()).starts_with("HTTP/1.1 431 "));
    hub.stop();
}

#[test]
fn more_clients_than_there_is_room_for_wait_their_turn() {
    let root = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(root.path(), "lab");
    let socket = hub.socket(API_SOCKET);
    let mut silent: Vec<StdStream> = (0..CONNECTIONS).map(|_| StdStream::connect(&socket).unwrap()).collect();
    let mut late = StdStream::connect(&socket).unwrap();
    late.write_all(&line("GET", "/v1/health")).unwrap();
    late.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut answer = [0; 16];
    assert_eq!(late.read(&mut answer).unwrap_err().kind(), io::ErrorKind::WouldBlock, "no room yet");
    silent.pop();
    late.set_read_timeout(Some(HEAD_TIMEOUT)).unwrap();
    late.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK\r");
    drop(late);
    hub.stop();
}

#[test]
fn a_silent_client_is_shown_out() {
    let root = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(root.path(), "lab");
    let start = std::time::Instant::now();
    assert_eq!(raw(&hub.socket(API_SOCKET), b"GET /v1/health HTTP/1.1\r\n"), "");
    assert!(start.elapsed() >= HEAD_TIMEOUT - Duration::from_secs(1));
    hub.stop();
}

#[test]
fn a_control_that_does_not_answer_is_told_of() {
    let root = tempfile::tempdir().unwrap();
    let dir = RunDir::claim(root.path(), "lab").unwrap();
    let (requests, mut inbox) = mpsc::channel(1);
    let api = Api::start(&dir, requests).unwrap();
    let socket = dir.path().join(API_SOCKET);
    let refused = |result: Result<Status, ClientError>| match result {
        Err(ClientError::Refused { code, text }) => (code, text),
        other => panic!("{other:?}"),
    };
    // The first takes the queue's only place, the second finds none: both are told in time.
    for _ in 0..2 {
        let start = std::time::Instant::now();
        let (code, text) = refused(get(&socket, "/v1/status"));
        assert_eq!((code, &*text), (503, "the hub's control thread did not answer within 2 s"));
        assert!(start.elapsed() >= PATIENCE);
    }
    // A question whose asker has gone is still in the queue; control finds nobody to answer, which must not hurt.
    match inbox.try_recv().unwrap() {
        Request::Status(reply) => assert!(reply.send(Status::default()).is_err()),
        other => panic!("{other:?}"),
    }
    drop(inbox);
    assert_eq!(refused(get(&socket, "/v1/status")), (503, "the hub is stopping".into()));
    drop(api);
}

#[test]
fn a_reload_says_what_changed_or_what_is_wrong() {
    let root = tempfile::tempdir().unwrap();
    let ask = |hub: &str| {
        let args = client::ReloadArgs { hub: Some(hub.into()), run_dir: root.path().into() };
        let mut out = Vec::new();
        client::reload_command(&args, &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    assert!(matches!(ask("lab"), Err(ClientError::NotRunning { .. })));
    let hub = FakeHub::start(root.path(), "lab");
    let broken = FakeHub::start(root.path(), "broken");
    assert_eq!(ask("lab").unwrap(), "reloaded: 1 site added\n");
    match ask("broken") {
        Err(ClientError::NotApplied(problems)) => assert_eq!(problems, "a:1: bad\nb:2: worse"),
        other => panic!("{other:?}"),
    }
    // Only to whom may change something.
    let refused = raw(&hub.socket(API_SOCKET), &line("POST", "/v1/reload"));
    assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}");
    hub.stop();
    broken.stop();
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves in this very thread, so that its log lines come to this test alone.
#[test]
fn each_change_is_logged_with_the_credentials_of_its_caller() {
    let lines = Lines::default();
    let sink = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || sink.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let root = tempfile::tempdir().unwrap();
    let dir = RunDir::claim(root.path(), "lab").unwrap();
    let listener = dir.listen(CONTROL_SOCKET, 0o600).unwrap();
    let socket = dir.path().join(CONTROL_SOCKET);
    let (requests, mut inbox) = mpsc::channel(QUEUE);
    let (stop, stopped) = watch::channel(false);
    let client = std::thread::spawn(move || {
        let begin = |site: &str| post::<serde_json::Value>(&socket, &format!("/v1/sites/1001/{site}/handshake"));
        let moved = post::<serde_json::Value>(&socket, "/v1/sites/1001/a/worker/1");
        assert_eq!(moved.unwrap(), serde_json::json!({ "worker": 1 }));
        let of_lane = post::<serde_json::Value>(&socket, "/v1/trunks/osaka/3/handshake");
        assert_eq!(of_lane.unwrap(), serde_json::json!({ "handshake": "begun" }));
        let outcomes = [begin("a%20%2F%20%E5%A4%A7%E9%98%AA"), begin("silent"), begin("hasty")];
        stop.send(true).unwrap();
        outcomes
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let control = async {
            while let Some(request) = inbox.recv().await {
                answer(request, &Status::default());
            }
        };
        let served = serve(UnixListener::from_std(listener).unwrap(), changes(requests), stopped);
        tokio::select! { () = served => {}, () = control => {} }
    });
    let [begun, silent, hasty] = client.join().unwrap();
    assert_eq!(begun.unwrap(), serde_json::json!({ "handshake": "begun" }));
    assert!(matches!(silent, Err(ClientError::Refused { code: 409, .. })));
    assert!(matches!(hasty, Err(ClientError::Refused { code: 429, .. })));

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let caller = format!(
        "caller=pid {} uid {} gid {}",
        std::process::id(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    let change =
        |site: &str, what: &str| text.lines().any(|l| l.contains(&caller) && l.contains(site) && l.contains(what));
    assert!(change("site=\"a / 大阪\"", "handshake begun"), "{text}");
    assert!(change("site=\"a\"", "moved to worker 1"), "{text}");
    assert!(change("site=\"silent\"", "handshake refused"), "{text}");
    assert!(change("site=\"hasty\"", "less than 5 s ago"), "{text}");
}

fn ask_status(root: &Path, hub: Option<&str>, tenant: Option<&str>, json: bool) -> Result<String, ClientError> {
    let args = StatusArgs { hub: hub.map(Into::into), json, tenant: tenant.map(Into::into), run_dir: root.into() };
    let mut out = Vec::new();
    status_command(&args, &mut out).map(|()| String::from_utf8(out).unwrap())
}

#[test]
fn status_finds_the_hub_or_says_what_is_in_its_way() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let error = |hub, tenant| ask_status(root, hub, tenant, false).unwrap_err().to_string();
    let nobody = format!(
        "no hub runs here (nothing listens under {}); start one with `ekiden run --config FILE`",
        root.display()
    );
    assert_eq!(error(None, None), nobody);
    assert!(matches!(ask_status(&root.join("no/such"), None, None, false), Err(ClientError::NoHub(_))));

    let osaka = FakeHub::start(root, "osaka");
    assert!(ask_status(root, None, None, false).unwrap().starts_with("hub osaka: "));
    assert_eq!(error(Some("tokyo"), None), "hub \"tokyo\" does not run here; these do: osaka");
    assert_eq!(error(Some("../osaka"), None), "hub \"../osaka\" does not run here; these do: osaka");
    assert_eq!(error(None, Some("9")), "hub osaka has no tenant with the id or service code \"9\"");
    assert!(
        ask_status(root, None, Some("WAN00001001"), false).unwrap().starts_with("tenant 1001  WAN00001001  大阪\n")
    );
    let one: Status = serde_json::from_str(&ask_status(root, None, Some("1002"), true).unwrap()).unwrap();
    assert_eq!(one.tenants.iter().map(|t| t.id).collect::<Vec<_>>(), [1002]);
    let all: Status = serde_json::from_str(&ask_status(root, None, None, true).unwrap()).unwrap();
    assert_eq!(all, report("osaka"));

    let tokyo = FakeHub::start(root, "tokyo");
    assert_eq!(error(None, None), "several hubs run here: osaka, tokyo; choose one with --hub NAME");
    assert!(ask_status(root, Some("tokyo"), None, false).unwrap().starts_with("hub tokyo: "));
    osaka.stop();
    assert!(ask_status(root, None, None, false).unwrap().starts_with("hub tokyo: "));
    tokyo.stop();
    assert_eq!(error(None, None), nobody);
}

#[test]
fn a_stranger_is_told_that_it_is_one() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let hub = FakeHub::start(root.path(), "lab");
    let place = root.path().to_owned();
    // Capabilities belong to threads: this one, without any, is kept out by a mode like everybody else.
    let error = std::thread::spawn(move || {
        for set in [::caps::CapSet::Effective, ::caps::CapSet::Permitted] {
            ::caps::clear(None, set).unwrap();
        }
        let foreign = place.join("lab");
        fs::set_permissions(&foreign, fs::Permissions::from_mode(0o000)).unwrap();
        let error = find_hub(&place, None).unwrap_err();
        fs::set_permissions(&foreign, fs::Permissions::from_mode(0o750)).unwrap();
        error.to_string()
    })
    .join()
    .unwrap();
    let socket = hub.socket(API_SOCKET);
    assert_eq!(
        error,
        format!("{} may only be used by root and the hub's group: Permission denied (os error 13)", socket.display())
    );
    hub.stop();
}
