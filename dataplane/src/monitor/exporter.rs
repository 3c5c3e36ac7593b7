//! `ekiden exporter`: a hub's statistics for Prometheus, by a process of its own that needs no rights but to read one file.
//!
//! `GET /metrics` takes a snapshot of the segment and writes it as OpenMetrics or, for those who don't ask for that, in the
//! older Prometheus text format. If there is nothing to read, it says so by `ekiden_up 0`, and goes on trying.

mod page;
mod process;
#[cfg(test)]
mod tests;
mod text;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use stats::{Now, ReadError, Reader, Snapshot};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::api::DEFAULT_RUN_ROOT;
use page::{Page, Times};
use text::Format;

/// The segment's name in a hub's directory.
const SEGMENT: &str = "stats";
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last; Prometheus opens another when it finds one closed.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Connections at a time; more wait in the socket's backlog.
const CONNECTIONS: usize = 16;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;
/// The largest head of a request.
const HEAD_BYTES: usize = 8192;
/// The two clocks are read one after the other, and drift: only a larger step between them is a clock that was set.
const CLOCK_STEP_NS: i128 = 50_000_000;

/// What `ekiden exporter` was asked.
#[derive(Debug, clap::Args)]
pub struct ExporterArgs {
    /// Where to answer; of the management network, never of the internet
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9586")]
    pub listen: SocketAddr,
    /// Answer through this interface or VRF alone
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// The hub, by its name in the configuration; not needed where there is one
    #[arg(long, value_name = "NAME", conflicts_with = "stats")]
    pub hub: Option<String>,
    /// The segment itself, in place of a hub's name
    #[arg(long, value_name = "PATH")]
    pub stats: Option<PathBuf>,
    /// No series of sites, only of tenants: for hubs with very many
    #[arg(long)]
    pub no_sites: bool,
    /// At most so many series of tenants and sites; ekiden_exporter_series_dropped tells how many that left out
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    pub max_series: usize,
    /// What to log; EKIDEN_LOG does the same
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Where the directories of running hubs are
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_ROOT, hide = true)]
    pub run_dir: PathBuf,
}

/// `ekiden exporter`: answers until it is ended by a signal.
pub fn command(args: &ExporterArgs) -> anyhow::Result<()> {
    process::started();
    crate::logging::init(args.log.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = listen(args.listen, args.interface.as_deref())?;
        tracing::info!(address = %listener.local_addr()?, "exporter listens");
        serve(listener, router(Exporter::new(args))).await;
        Ok(())
    })
}

fn listen(address: SocketAddr, interface: Option<&str>) -> anyhow::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // An exporter that was restarted does not wait for the old one's connections to be forgotten.
    socket.set_reuseaddr(true)?;
    if let Some(name) = interface {
        let bound = socket.bind_device(Some(name.as_bytes()));
        bound.with_context(|| format!("could not bind to the interface {name:?}"))?;
    }
    socket.bind(address).with_context(|| format!("could not listen on {address}"))?;
    Ok(socket.listen(BACKLOG)?)
}

fn router(exporter: Exporter) -> Router {
    let front = "ekiden exporter: GET /metrics\n";
    Router::new()
        .route("/", get(move || async move { front }))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Mutex::new(exporter)))
}

async fn metrics(State(exporter): State<Arc<Mutex<Exporter>>>, headers: HeaderMap) -> Response {
    let format = Format::wanted(headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()));
    // One thread serves all connections, so the lock is free; a scrape that panicked leaves nothing half done.
    let text = exporter.lock().unwrap_or_else(PoisonError::into_inner).scrape(format);
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn serve(listener: TcpListener, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed, so a permit always comes.
        let permit = Arc::clone(&room).acquire_owned().await.ok();
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router).await;
                    drop(permit);
                });
            }
            // Out of descriptors or memory: they come back when connections end, and a busy loop would help nobody.
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// One connection, with every limit that keeps a slow or hostile client from costing more than a descriptor.
async fn connection(stream: TcpStream, router: Router) {
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIMEOUT, http).await {
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended badly"),
        Ok(Ok(())) | Err(_) => {}
    }
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("no hub has statistics under {}", .0.display())]
    NoHub(PathBuf),
    #[error("several hubs have statistics here: {}; choose one with --hub NAME", .0.join(", "))]
    Several(Vec<String>),
    #[error("could not look into {}: {}", .0.display(), .1)]
    Directory(PathBuf, io::Error),
}

/// The segment, and how it is shown.
struct Exporter {
    hub: Option<String>,
    stats: Option<PathBuf>,
    run_dir: PathBuf,
    sites: bool,
    max_series: usize,
    reader: Option<Reader>,
    /// What is wrong, once it was logged.
    complaint: Option<String>,
    /// Whether it was logged that series are left out.
    full: bool,
    times: Times,
}

impl Exporter {
    fn new(args: &ExporterArgs) -> Self {
        Self {
            hub: args.hub.clone(),
            stats: args.stats.clone(),
            run_dir: args.run_dir.clone(),
            sites: !args.no_sites,
            max_series: args.max_series,
            reader: None,
            complaint: None,
            full: false,
            times: Times::default(),
        }
    }

    fn scrape(&mut self, format: Format) -> Result<String, std::fmt::Error> {
        let snapshot = match self.snapshot() {
            Ok(snapshot) => {
                if self.complaint.take().is_some() {
                    tracing::info!(hub = snapshot.hub.name, "the statistics can be read again");
                }
                Some(snapshot)
            }
            Err(error) => {
                // Once, not at each scrape; and again if something else is wrong.
                let complaint = error.to_string();
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!("{complaint}");
                    self.complaint = Some(complaint);
                }
                None
            }
        };
        let now = Now::read();
        self.times.set(i128::from(now.wall_ns) - i128::from(now.ns));
        let page = Page::new(snapshot, self.sites, self.max_series, self.times);
        if page.series_dropped > 0 && !self.full {
            let (left_out, limit) = (page.series_dropped, self.max_series);
            tracing::warn!(left_out, limit, "more series than --max-series allows");
        }
        self.full = page.series_dropped > 0;
        format.write(page)
    }

    fn snapshot(&mut self) -> Result<Snapshot, Unread> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => Reader::open(&self.find()?)?,
        };
        let snapshot = reader.snapshot()?;
        // A reader that failed is not kept: the next scrape begins with whatever file has the name then.
        self.reader = Some(reader);
        Ok(snapshot)
    }

    /// The segment that was asked for, or the only one that there is.
    fn find(&self) -> Result<PathBuf, Unread> {
        if let Some(path) = &self.stats {
            return Ok(path.clone());
        }
        if let Some(hub) = &self.hub {
            return Ok(self.run_dir.join(hub).join(SEGMENT));
        }
        let mut hubs = hubs(&self.run_dir)?;
        match (hubs.pop(), hubs.is_empty()) {
            (Some(hub), true) => Ok(self.run_dir.join(hub).join(SEGMENT)),
            (None, _) => Err(Unread::NoHub(self.run_dir.clone())),
            (Some(last), false) => {
                hubs.push(last);
                hubs.sort();
                Err(Unread::Several(hubs))
            }
        }
    }
}

/// The hubs that have a segment. One whose directory this user can't look into has one, for all that is known: opening
/// it will say what is wrong.
fn hubs(root: &Path) -> Result<Vec<String>, Unread> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::NoHub(root.into())),
        Err(error) => return Err(Unread::Directory(root.into(), error)),
    };
    let has_segment = |path: &Path| match path.join(SEGMENT).try_exists() {
        Ok(exists) => exists,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    };
    let found = entries.flatten().filter(|entry| has_segment(&entry.path()));
    Ok(found.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
