//! `inception lab serve`: the lessons as a web page. Choose, run, watch live over server-sent events, send signals.

mod guard;
mod pages;
mod session;

use super::{alternative::Alternative, interrupt::Interrupt, lesson};
use crate::error::{Context, Error, Result};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
    middleware::from_fn_with_state,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::Stream;
use guard::Guard;
use serde::Deserialize;
use session::Session;
use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

/// Where it listens unless asked otherwise: only this machine reaches it.
pub const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8484));
/// Between two pictures at least; and at most, while something runs.
const FRAME: Duration = Duration::from_millis(100);
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A request's body: some words.
const BODY_LIMIT: usize = 4096;

/// Where to listen, and how.
pub struct Options {
    pub listen: SocketAddr,
    /// Makes a token, without which nobody is let in.
    pub token: bool,
    /// Of the lessons' stops.
    pub grace: Duration,
}

/// Serves until a signal asks for the end; then nothing of the lesson is left. `ready` is told the address to open.
pub fn serve(options: &Options, interrupt: &Interrupt, ready: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    if !options.listen.ip().is_loopback() && !options.token {
        return Err(Error::Invalid(format!(
            "--listen {}: others could reach this address, and run the lessons as you: add --token",
            options.listen
        )));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.doing("start the async runtime")?;
    let session = Arc::new(Session::new(options.grace));
    let result = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(options.listen).await;
        let listener = listener.doing(format!("listen on {}", options.listen))?;
        let address = listener.local_addr().doing("find the own address")?;
        let token = options.token.then(Guard::make_token).transpose();
        let token = token.map_err(|error| Error::Failed(format!("make a token: {error}")))?;
        let guard = Guard::new(address, token);
        ready(&guard.link())?;
        tokio::select! {
            served = axum::serve(listener, router(session.clone(), guard)) => served.doing("serve the page"),
            () = ended(interrupt) => Ok(()),
        }
    });
    session.end();
    // Browsers keep their event streams open for ever.
    runtime.shutdown_background();
    result
}

async fn ended(interrupt: &Interrupt) {
    while interrupt.signal().is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn router(session: Arc<Session>, guard: Guard) -> Router {
    Router::new()
        .route("/", get(|| async { axum::response::Html(pages::index()) }))
        .route("/lesson/{name}", get(lesson_page))
        .route("/style.css", get(|| async { ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], pages::style()) }))
        .route("/lab.js", get(|| async { ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], pages::SCRIPT) }))
        .route("/events", get(events))
        .route("/run", post(run))
        .route("/signal", post(signal))
        .route("/go-on", post(go_on))
        .route("/end", post(end))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(guard, guard::check))
        .with_state(session)
}

/// What a request may fail by, as an answer.
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, self.0.to_string()).into_response()
    }
}

fn find(name: &str) -> Result<&'static lesson::Lesson, Failure> {
    lesson::find(name).ok_or_else(|| Failure(Error::not_found("lesson", name)))
}

async fn lesson_page(Path(name): Path<String>) -> Result<impl IntoResponse, Failure> {
    Ok(axum::response::Html(pages::lesson(find(&name)?)))
}

#[derive(Deserialize)]
struct RunRequest {
    lesson: String,
    alternatives: Vec<String>,
    /// Whether runs wait where their program is ready.
    hold: bool,
}

async fn run(State(session): State<Arc<Session>>, Json(wish): Json<RunRequest>) -> Result<StatusCode, Failure> {
    let lesson = find(&wish.lesson)?;
    let named = |name: &String| {
        Alternative::named(name).ok_or_else(|| Error::Invalid(format!("there is no alternative {name:?}")))
    };
    let wanted = wish.alternatives.iter().map(named).collect::<Result<Vec<_>>>()?;
    // Each once, in the order in which they are shown.
    let alternatives = Alternative::ALL.into_iter().filter(|alternative| wanted.contains(alternative)).collect();
    session.run(lesson, alternatives, wish.hold)?;
    Ok(StatusCode::ACCEPTED)
}

#[derive(Deserialize)]
struct SignalRequest {
    /// As the host counts.
    pid: i32,
    /// `TERM`
    signal: String,
}

async fn signal(State(session): State<Arc<Session>>, Json(wish): Json<SignalRequest>) -> Result<StatusCode, Failure> {
    on_show(&session)?.signal(wish.pid, &wish.signal)?;
    Ok(StatusCode::ACCEPTED)
}

async fn go_on(State(session): State<Arc<Session>>) -> Result<StatusCode, Failure> {
    on_show(&session)?.go_on();
    Ok(StatusCode::ACCEPTED)
}

async fn end(State(session): State<Arc<Session>>) -> Result<StatusCode, Failure> {
    on_show(&session)?.end();
    Ok(StatusCode::ACCEPTED)
}

fn on_show(session: &Session) -> Result<Arc<session::Show>, Failure> {
    session.show().ok_or_else(|| Failure(Error::Conflict("no lesson is running".into())))
}

/// The board whenever it has changed, with the state of the buttons and what is to be spoken.
async fn events(State(session): State<Arc<Session>>, headers: HeaderMap) -> impl IntoResponse {
    log::debug!("a browser watches: {:?}", headers.get(header::USER_AGENT));
    Sse::new(stream(session)).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

fn stream(session: Arc<Session>) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut changes = session.changes();
    changes.mark_changed();
    futures_util::stream::unfold((session, changes, 0, None), |(session, mut changes, seen, last)| async move {
        let is_running = session.status().running;
        let pause = if is_running { HEARTBEAT } else { Duration::from_secs(3600) };
        let changed = tokio::time::timeout(pause, changes.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            return None;
        }
        if last.is_some() {
            // What comes in quick succession becomes one picture.
            tokio::time::sleep(FRAME).await;
            changes.mark_unchanged();
        }
        let show = session.show();
        // Another show counts from the start.
        let current = show.as_ref().map(|show| Arc::as_ptr(show) as usize);
        let seen = if Some(current) == last { seen } else { 0 };
        let (seen, spoken) = show.as_ref().map_or((seen, Vec::new()), |show| show.announcements(seen));
        let frame = serde_json::json!({
            "status": session.status(),
            "board": show.as_ref().map_or_else(String::new, |show| show.board()),
            "spoken": spoken,
        });
        let event = Event::default().data(frame.to_string());
        Some((Ok(event), (session, changes, seen, Some(current))))
    })
}
