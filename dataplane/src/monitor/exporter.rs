//! `ekiden exporter`: a hub's statistics for Prometheus, by a process of its own that needs no rights but to read one file.
//!
//! `GET /metrics` takes a snapshot of the segment and writes it as OpenMetrics or, for those who don't ask for that, in the
//! older Prometheus text format. If there is nothing to read, it says so by `ekiden_up 0`, and goes on trying.

mod page;
mod process;
#[cfg(test)]
mod tests;
mod text;

use std::net::SocketAddr;
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
use stats::{Now, Reader, Snapshot};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::place::SegmentArgs;
use page::{Page, Times};
use text::Format;

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
    #[command(flatten)]
    segment: SegmentArgs,
    /// No series of sites, only of tenants: for hubs with very many
    #[arg(long)]
    pub no_sites: bool,
    /// At most so many series of tenants and sites; ekiden_exporter_series_dropped tells how many that left out
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    pub max_series: usize,
    /// What to log; EKIDEN_LOG does the same
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
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
    if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, http).await {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// The segment, and how it is shown.
struct Exporter {
    segment: SegmentArgs,
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
            segment: args.segment.clone(),
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
                let complaint = format!("{error:#}");
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

    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => Reader::open(&self.segment.find()?)?,
        };
        let snapshot = reader.snapshot()?;
        // A reader that failed is not kept: the next scrape begins with whatever file has the name then.
        self.reader = Some(reader);
        Ok(snapshot)
    }
}
