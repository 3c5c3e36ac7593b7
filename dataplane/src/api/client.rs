//! The other end of the API: `ekiden status`, and what else asks a running hub.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Deserialize;
use tokio::net::UnixStream;

use super::rundir::{API_SOCKET, CONTROL_SOCKET, DEFAULT_RUN_ROOT, is_name};
use crate::status::{Reload, Status, render, render_tenant};

/// A hub answers within its own patience, or not at all; this leaves time for a long report.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a reload.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer: a hundred times the report of 10,000 sites.
const ANSWER_BYTES: usize = 512 << 20;

/// What `ekiden status` was asked.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The hub, by its name in the configuration; not needed where only one runs
    #[arg(long, value_name = "NAME")]
    pub hub: Option<String>,
    /// The whole report as JSON, with exact numbers
    #[arg(long)]
    pub json: bool,
    /// Only this tenant, with all that is known of each of its sites
    #[arg(long, value_name = "ID|SERVICE_CODE")]
    pub tenant: Option<String>,
    /// Where the directories of running hubs are
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_ROOT, hide = true)]
    pub run_dir: PathBuf,
}

/// Why a hub could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens in any hub's directory.
    #[error("no hub runs here (nothing listens under {}); start one with `ekiden run --config FILE`", .0.display())]
    NoHub(PathBuf),
    /// This hub does not run.
    #[error("hub {hub:?} does not run here{}", if .others.is_empty() { String::new() } else { format!("; these do: {}", .others.join(", ")) })]
    NotRunning {
        /// The hub that was asked for.
        hub: String,
        /// The hubs that run.
        others: Vec<String>,
    },
    /// More than one hub runs.
    #[error("several hubs run here: {}; choose one with --hub NAME", .0.join(", "))]
    Several(Vec<String>),
    /// The directory or socket is not for this user.
    #[error("{} may only be used by root and the hub's group: {source}", .path.display())]
    Denied {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The hub did not take its new configuration: a problem a line.
    #[error("{0}\nnothing was changed")]
    NotApplied(String),
    /// The hub answered with an error.
    #[error("the hub answered {code}: {text}")]
    Refused {
        /// The status of HTTP.
        code: u16,
        /// The error's text.
        text: String,
    },
    /// The hub has no such tenant.
    #[error("hub {hub} has no tenant with the id or service code {tenant:?}")]
    NoTenant {
        /// The hub.
        hub: String,
        /// What was asked for.
        tenant: String,
    },
    /// The hub did not answer in time.
    #[error("the hub did not answer on {} within {} s", .0.display(), .1.as_secs())]
    Timeout(PathBuf, Duration),
    /// The answer was none that can be understood.
    #[error("the answer on {} can't be understood: {why}", .path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Something else went wrong.
    #[error("{}: {source}", .path.display())]
    Io {
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// `ekiden status`: asks the hub and writes what it answers. A reader that goes away early (`| head`) is no error.
pub fn status_command(args: &StatusArgs, out: &mut impl Write) -> Result<(), ClientError> {
    let socket = find_hub(&args.run_dir, args.hub.as_deref())?;
    let mut status: Status = get(&socket, "/v1/status")?;
    let text = match (&args.tenant, args.json) {
        (Some(wanted), json) => {
            let unknown = ClientError::NoTenant { hub: status.hub.name.clone(), tenant: wanted.clone() };
            let tenant = status.tenant(wanted).cloned().ok_or(unknown)?;
            if json {
                status.tenants = vec![tenant];
                pretty(&status)
            } else {
                render_tenant(&tenant)
            }
        }
        (None, true) => pretty(&status),
        (None, false) => render(&status),
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(ClientError::Io { path: "standard output".into(), source }),
        Ok(()) => Ok(()),
    }
}

/// What `ekiden reload` was asked.
#[derive(Debug, clap::Args)]
pub struct ReloadArgs {
    /// The hub, by its name in the configuration; not needed where only one runs
    #[arg(long, value_name = "NAME")]
    pub hub: Option<String>,
    /// Where the directories of running hubs are
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_ROOT, hide = true)]
    pub run_dir: PathBuf,
}

/// `ekiden reload`: has a hub read its configuration again, and waits until it is in force or refused.
pub fn reload_command(args: &ReloadArgs, out: &mut impl Write) -> Result<(), ClientError> {
    let socket = find_hub(&args.run_dir, args.hub.as_deref())?.with_file_name(CONTROL_SOCKET);
    let report: Reload = call(&socket, &Method::POST, "/v1/reload", RELOAD_TIMEOUT).map_err(|error| match error {
        ClientError::Refused { code: 422, text } => ClientError::NotApplied(text),
        other => other,
    })?;
    let written = writeln!(out, "reloaded: {}", report.text).and_then(|()| out.flush());
    written.map_err(|source| ClientError::Io { path: "standard output".into(), source })
}

fn pretty(status: &Status) -> String {
    // A report is strings, numbers and lists: writing it into a string can't fail.
    let mut text = serde_json::to_string_pretty(status).unwrap_or_default();
    text.push('\n');
    text
}

/// The read-only socket of the hub of this name, or of the only hub that runs.
pub fn find_hub(root: &Path, hub: Option<&str>) -> Result<PathBuf, ClientError> {
    if let Some(hub) = hub {
        let socket = root.join(hub).join(API_SOCKET);
        if is_name(hub) && listens(&socket)? {
            return Ok(socket);
        }
        return Err(ClientError::NotRunning { hub: hub.into(), others: running(root).unwrap_or_default() });
    }
    let mut hubs = running(root)?;
    match hubs.len() {
        0 => Err(ClientError::NoHub(root.into())),
        1 => Ok(root.join(hubs.remove(0)).join(API_SOCKET)),
        _ => Err(ClientError::Several(hubs)),
    }
}

/// The names of the hubs that run, in order.
fn running(root: &Path) -> Result<Vec<String>, ClientError> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ClientError::Io { path: root.into(), source }),
    };
    let mut hubs = Vec::new();
    for entry in entries.flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| is_name(name))
            && listens(&entry.path().join(API_SOCKET))?
        {
            hubs.push(name.to_owned());
        }
    }
    hubs.sort();
    Ok(hubs)
}

/// Whether somebody listens on a socket: a hub that was killed leaves one on which nobody does.
fn listens(socket: &Path) -> Result<bool, ClientError> {
    let io_error = |source: io::Error| ClientError::Io { path: socket.into(), source };
    let address = SocketAddrUnix::new(socket).map_err(|error| io_error(error.into()))?;
    // Without waiting: if the hub is stuck and its backlog is full, it runs all the same.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|error| io_error(error.into()))?;
    match rustix::net::connect(&probe, &address) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => Ok(false),
        Err(Errno::ACCESS) => Err(ClientError::Denied { path: socket.into(), source: Errno::ACCESS.into() }),
        Err(error) => Err(io_error(error.into())),
    }
}

/// Asks by GET.
pub fn get<T: for<'a> Deserialize<'a>>(socket: &Path, path: &str) -> Result<T, ClientError> {
    call(socket, &Method::GET, path, TIMEOUT)
}

/// Asks by POST, without a body.
pub fn post<T: for<'a> Deserialize<'a>>(socket: &Path, path: &str) -> Result<T, ClientError> {
    call(socket, &Method::POST, path, TIMEOUT)
}

fn call<T: for<'a> Deserialize<'a>>(
    socket: &Path,
    method: &Method,
    path: &str,
    patience: Duration,
) -> Result<T, ClientError> {
    let io_error = |source| ClientError::Io { path: socket.into(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io_error)?;
    let (code, body) = runtime
        .block_on(async { tokio::time::timeout(patience, exchange(socket, method, path)).await })
        .map_err(|_| ClientError::Timeout(socket.into(), patience))??;
    let bad = |why: String| ClientError::Answer { path: socket.into(), why };
    if code.is_success() {
        return serde_json::from_slice(&body).map_err(|error| bad(error.to_string()));
    }
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let text = serde_json::from_slice(&body).map_or_else(|_| "without saying why".into(), |r: Refusal| r.error);
    Err(ClientError::Refused { code: code.as_u16(), text })
}

/// One request and its answer over a connection of their own.
async fn exchange(socket: &Path, method: &Method, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
    let bad = |why: String| ClientError::Answer { path: socket.into(), why };
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Denied { path: socket.into(), source },
        _ => ClientError::Io { path: socket.into(), source },
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| bad(error.to_string()))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "ekiden")
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| bad(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| bad(error.to_string()))?;
    let code = answer.status();
    let body =
        Limited::new(answer.into_body(), ANSWER_BYTES).collect().await.map_err(|error| bad(error.to_string()))?;
    Ok((code, body.to_bytes()))
}
