//! The hub's own interface: HTTP and JSON over two Unix sockets, served by a thread of its own.
//!
//! - `api.sock` (0660) only tells: `GET /v1/status`, `GET /v1/health`, `GET /v1/drops`.
//! - `control.sock` (0600) changes something: `POST /v1/reload`, `POST /v1/sites/{tenant}/{site}/handshake`,
//!   `POST /v1/trunks/{trunk}/{lane}/handshake`. Each change is logged with the
//!   credentials of its caller, as the kernel vouches for them (`SO_PEERCRED`).
//!
//! Every answer is JSON; an error is `{"error": "..."}`. This thread knows nothing of the hub: each request goes as a
//! [`Request`] to control, which answers when it can, and a client is told within [`PATIENCE`] if it can't.

pub mod client;
mod rundir;
#[cfg(test)]
mod tests;

pub(crate) use rundir::is_name;
pub use rundir::{API_SOCKET, CONTROL_SOCKET, DEFAULT_RUN_ROOT, RunDir, RunDirError, STATS, STATS_SOCKET};

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use wire::{DROP_REASONS, TenantId};

use crate::status::{self, Status};

/// How long a request waits for control before its client is told that the hub does not answer.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The same for a reload, which reads files and checks them whole.
pub const RELOAD_PATIENCE: Duration = Duration::from_secs(25);
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last. A whole report of 10,000 sites takes a small part of a second.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at a time on each socket; more wait in the socket's backlog.
const CONNECTIONS: usize = 32;
/// The largest head of a request, and the least that hyper accepts as a limit.
const HEAD_BYTES: usize = 8192;
/// The largest body of a request. No request has one yet.
const BODY_BYTES: usize = 4096;
/// Requests that may wait for control; with these in the queue a further one waits as if it were sent.
pub const QUEUE: usize = 16;

/// What the API asks of control. A dropped reply means that control is going away, and is answered with 503.
#[derive(Debug)]
pub enum Request {
    /// The whole report.
    Status(oneshot::Sender<Status>),
    /// Whether control turns its loop: it answers at once, with nothing.
    Health(oneshot::Sender<()>),
    /// Read the configuration again, and apply it.
    Reload(oneshot::Sender<status::Reload>),
    /// Start a handshake with a site, or on a lane of a trunk, now, whatever its session.
    Handshake {
        /// The site's tenant; a lane has none.
        tenant: Option<TenantId>,
        /// The site's name, or the trunk's and the number of the lane, as in `osaka/0`.
        site: String,
        /// Whether it was begun.
        reply: oneshot::Sender<Result<(), Refused>>,
    },
    /// Let another worker receive what a site sends, where XDP spreads.
    Move {
        /// The site's tenant.
        tenant: TenantId,
        /// The site's name.
        site: String,
        /// The worker, by its place in `[workers]`.
        worker: u16,
        /// Whether it was done.
        reply: oneshot::Sender<Result<(), Refused>>,
    },
}

/// Why control did not do what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No tenant has this id.
    #[error("no tenant has this id")]
    UnknownTenant,
    /// The tenant has no site of this name.
    #[error("the tenant has no site of this name")]
    UnknownSite,
    /// There is no such trunk, or it has no such lane.
    #[error("the hub has no trunk of this name with a lane of this number; they are numbered from 0")]
    UnknownLane,
    /// Nobody knows where the site is.
    #[error("the site has no known endpoint: it has never connected, and none is configured")]
    NoEndpoint,
    /// The last initiation was sent a moment ago (Rekey-Timeout).
    #[error("a handshake with this site began less than 5 s ago")]
    TooSoon,
    /// There are fewer workers.
    #[error("the hub has no worker of this number; they are numbered from 0")]
    UnknownWorker,
    /// The NIC spreads, by its own rules.
    #[error("no port has a queue that workers share, so the NIC decides who receives what")]
    NothingShared,
}

/// The thread that serves the API. Dropped, it stops listening, ends within a second, and is waited for.
pub struct Api {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    /// Opens both sockets in `dir` and serves them; `requests` leads to control.
    pub fn start(dir: &RunDir, requests: mpsc::Sender<Request>) -> Result<Self, RunDirError> {
        let reading = dir.listen(API_SOCKET, 0o660)?;
        let changing = dir.listen(CONTROL_SOCKET, 0o600)?;
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| RunDirError::Thread { source })?;
        let thread = crate::caps::spawn_without("ekiden-api".into(), move || {
            if let Err(error) = runtime.block_on(serve_both(reading, changing, requests, stopped)) {
                tracing::error!(%error, "the API has ended; the hub runs on without it");
            }
        });
        let thread = thread.map_err(|error| RunDirError::Thread { source: io::Error::other(error) })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

/// Hands the statistics segment, by its descriptor for reading, to everybody who may connect to `stats.sock`: by a thread that only
/// ever waits, until the process ends.
pub fn hand_out_stats(dir: &RunDir, file: std::fs::File) -> Result<(), RunDirError> {
    let listener = dir.listen(STATS_SOCKET, 0o660)?;
    listener.set_nonblocking(false).map_err(|source| RunDirError::Thread { source })?;
    let thread = crate::caps::spawn_without("ekiden-stats".into(), move || stats::hand_out(&listener, &file));
    thread.map_err(|error| RunDirError::Thread { source: io::Error::other(error) })?;
    Ok(())
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve_both(
    reading: std::os::unix::net::UnixListener,
    changing: std::os::unix::net::UnixListener,
    requests: mpsc::Sender<Request>,
    stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let (reading, changing) = (UnixListener::from_std(reading)?, UnixListener::from_std(changing)?);
    tokio::join!(
        serve(reading, telling(requests.clone()), stopped.clone()),
        serve(changing, changes(requests), stopped)
    );
    Ok(())
}

/// Accepts connections until told to stop.
async fn serve(listener: UnixListener, router: Router, mut stopped: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accept = async {
            // The semaphore is never closed, so a permit always comes.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router).await;
                    drop(permit);
                });
            }
            // Out of descriptors or memory: they come back when connections end, and a busy loop would help nobody.
            Err(error) => {
                tracing::warn!(%error, "the API could not accept a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// One connection, with every limit that keeps a slow or hostile client from costing more than a descriptor.
async fn connection(stream: UnixStream, router: Router) {
    let caller = Caller::of(&stream);
    let service = TowerToHyperService::new(router.layer(Extension(caller)));
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(32)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, http).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%caller, %error, "an API connection ended badly"),
        Err(_) => tracing::debug!(%caller, "an API connection took too long and was closed"),
    }
}

/// Who is at the other end of a connection, by the kernel's word at the time it connected.
#[derive(Debug, Clone, Copy)]
struct Caller {
    pid: Option<i32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Caller {
    fn of(stream: &UnixStream) -> Self {
        match stream.peer_cred() {
            Ok(peer) => Self { pid: peer.pid(), uid: Some(peer.uid()), gid: Some(peer.gid()) },
            Err(_) => Self { pid: None, uid: None, gid: None },
        }
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = |number: Option<i64>| number.map_or_else(|| "unknown".into(), |number| number.to_string());
        let (pid, uid, gid) = (self.pid.map(i64::from), self.uid.map(i64::from), self.gid.map(i64::from));
        write!(f, "pid {} uid {} gid {}", known(pid), known(uid), known(gid))
    }
}

/// `api.sock`.
fn telling(requests: mpsc::Sender<Request>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/health", get(health))
        .route("/v1/drops", get(drops))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(requests)
}

/// `control.sock`.
fn changes(requests: mpsc::Sender<Request>) -> Router {
    Router::new()
        .route("/v1/reload", post(reload))
        .route("/v1/sites/{tenant}/{site}/handshake", post(handshake))
        .route("/v1/trunks/{trunk}/{lane}/handshake", post(handshake_of_lane))
        .route("/v1/sites/{tenant}/{site}/worker/{worker}", post(move_to_worker))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(requests)
}

async fn status(State(requests): State<mpsc::Sender<Request>>) -> Result<Json<Status>, Failure> {
    ask(&requests, Request::Status).await.map(Json)
}

async fn health(State(requests): State<mpsc::Sender<Request>>) -> Result<Json<serde_json::Value>, Failure> {
    ask(&requests, Request::Health).await?;
    Ok(Json(serde_json::json!({ "status": "ok" })))
}

async fn drops() -> Json<Vec<Reason>> {
    Json(DROP_REASONS.iter().map(|r| Reason { number: *r as u8, name: r.name().into(), doc: r.doc().into() }).collect())
}

async fn reload(
    State(requests): State<mpsc::Sender<Request>>,
    Extension(caller): Extension<Caller>,
    request: HttpRequest,
) -> Result<Json<status::Reload>, Failure> {
    no_body(request.into_body()).await?;
    tracing::info!(%caller, "reload, as asked on {CONTROL_SOCKET}");
    let report = ask_within(RELOAD_PATIENCE, &requests, Request::Reload).await?;
    if report.applied { Ok(Json(report)) } else { Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, report.text)) }
}

async fn handshake(
    State(requests): State<mpsc::Sender<Request>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, site)): Path<(String, String)>,
    request: HttpRequest,
) -> Result<Response, Failure> {
    no_body(request.into_body()).await?;
    let begin = |tenant, site, reply| Request::Handshake { tenant: Some(tenant), site, reply };
    let outcome = change(&requests, &tenant, &site, begin).await;
    say(&outcome, &caller, &tenant, &site, "handshake begun", "handshake refused");
    outcome.map(|()| (StatusCode::ACCEPTED, Json(serde_json::json!({ "handshake": "begun" }))).into_response())
}

async fn handshake_of_lane(
    State(requests): State<mpsc::Sender<Request>>,
    Extension(caller): Extension<Caller>,
    Path((trunk, lane)): Path<(String, String)>,
    request: HttpRequest,
) -> Result<Response, Failure> {
    no_body(request.into_body()).await?;
    let name = format!("{trunk}/{lane}");
    let begin = |reply| Request::Handshake { tenant: None, site: name, reply };
    let outcome = ask(&requests, begin).await.and_then(|answer| answer.map_err(failure));
    say(&outcome, &caller, &trunk, &lane, "handshake begun", "handshake refused");
    outcome.map(|()| (StatusCode::ACCEPTED, Json(serde_json::json!({ "handshake": "begun" }))).into_response())
}

async fn move_to_worker(
    State(requests): State<mpsc::Sender<Request>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, site, worker)): Path<(String, String, String)>,
    request: HttpRequest,
) -> Result<Response, Failure> {
    no_body(request.into_body()).await?;
    let number = worker.parse().map_err(|_| Failure::new(StatusCode::NOT_FOUND, Refused::UnknownWorker.to_string()))?;
    let to_worker = |tenant, site, reply| Request::Move { tenant, site, worker: number, reply };
    let outcome = change(&requests, &tenant, &site, to_worker).await;
    let done = format!("moved to worker {worker}");
    say(&outcome, &caller, &tenant, &site, &done, "move to another worker refused");
    outcome.map(|()| Json(serde_json::json!({ "worker": number })).into_response())
}

/// Logged also when refused: an attempt to change something is what an operator looks for afterwards.
fn say(outcome: &Result<(), Failure>, caller: &Caller, tenant: &str, site: &str, done: &str, refused: &str) {
    match outcome {
        Ok(()) => tracing::info!(%caller, tenant, site, "{done}, as asked on {CONTROL_SOCKET}"),
        Err(why) => tracing::info!(%caller, tenant, site, error = why.text, "{refused}, asked on {CONTROL_SOCKET}"),
    }
}

/// Asks control to change something about a site.
async fn change(
    requests: &mpsc::Sender<Request>,
    tenant: &str,
    site: &str,
    question: impl FnOnce(TenantId, String, oneshot::Sender<Result<(), Refused>>) -> Request,
) -> Result<(), Failure> {
    let id = tenant.parse().ok().and_then(|id| TenantId::new(id).ok());
    let tenant = id.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "a tenant's id is a number below 16777216"))?;
    ask(requests, |reply| question(tenant, site.to_owned(), reply)).await?.map_err(failure)
}

fn failure(refused: Refused) -> Failure {
    let code = match refused {
        Refused::UnknownTenant | Refused::UnknownSite | Refused::UnknownLane | Refused::UnknownWorker => {
            StatusCode::NOT_FOUND
        }
        Refused::NoEndpoint | Refused::NothingShared => StatusCode::CONFLICT,
        Refused::TooSoon => StatusCode::TOO_MANY_REQUESTS,
    };
    Failure::new(code, refused.to_string())
}

async fn no_body(body: Body) -> Result<(), Failure> {
    match axum::body::to_bytes(body, BODY_BYTES).await {
        Ok(bytes) if bytes.is_empty() => Ok(()),
        Ok(_) => Err(Failure::new(StatusCode::BAD_REQUEST, "this request takes no body")),
        Err(_) => Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "this request takes no body, and this one is large")),
    }
}

/// Puts a question to control and waits for its answer, but not for ever.
async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    question: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Failure> {
    ask_within(PATIENCE, requests, question).await
}

async fn ask_within<T>(
    patience: Duration,
    requests: &mpsc::Sender<Request>,
    question: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Failure> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        requests.send(question(reply)).await.ok()?;
        answer.await.ok()
    };
    match timeout(patience, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the hub is stopping")),
        Err(_) => Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the hub's control thread did not answer within {} s", patience.as_secs()),
        )),
    }
}

async fn no_such_path(request: HttpRequest) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("no such path: {}", request.uri().path()))
}

async fn wrong_method(request: HttpRequest) -> Failure {
    let text = format!("{} is not for {}", request.method(), request.uri().path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, text)
}

/// A drop reason as `GET /v1/drops` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Its number in statistics.
    pub number: u8,
    /// Its name in status and metrics.
    pub name: String,
    /// What it means.
    pub doc: String,
}

/// An error as a client gets it.
#[derive(Debug)]
struct Failure {
    code: StatusCode,
    text: String,
}

impl Failure {
    fn new(code: StatusCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.code, Json(serde_json::json!({ "error": self.text }))).into_response()
    }
}
