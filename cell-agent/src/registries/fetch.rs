//! Gets things from the cache, or from their registries into the cache. Who asks for what is being fetched joins in: each is
//! fetched once, and a large file reaches a build while it comes. What is not what its registry says it is gets no build in
//! full and is not kept.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use reqwest::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use url::Url;

use super::digests::{Expected, Hasher};
use super::fault::Fault;
use super::guests::{Guest, Share};
use super::store::{Draft, Kept, Label, Store};
use super::upstream::{Registry, Upstream, etag_of};

/// Fetches of all builds at a time.
const FETCHES: usize = 32;
/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(60);
/// All of one fetch. As long as two builds may take: enough for the largest file by a slow line, and an end for a registry that
/// sends a byte a minute and has a turn all the while.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// For so long what a registry says is not asked for again: the questions of one installation.
const FRESH: Duration = Duration::from_secs(10);
/// Written to the disk at once.
const PIECE: usize = 256 << 10;
/// Of things whose last question is noted; they are forgotten all together, which costs a question each.
const MOST_NOTED: usize = 16 << 10;

/// What to get.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// What it is kept as.
    pub(super) key: String,
    /// For people.
    pub(super) what: String,
    pub(super) registry: Arc<Registry>,
    pub(super) url: Url,
    pub(super) accept: &'static str,
    /// Bytes that it may have.
    pub(super) most: u64,
    pub(super) expected: Option<Expected>,
    /// Whether it may change, so that its registry is asked again.
    pub(super) changes: bool,
}

/// How far a fetch is.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    Begun,
    Growing { file: Arc<File>, written: u64, length: Option<u64> },
    Done(Arc<Kept>),
    Failed(Fault),
}

/// Something that a build gets: whole, or as it comes.
#[derive(Debug)]
pub(super) enum Found {
    Whole(Arc<Kept>),
    Growing { file: Arc<File>, length: Option<u64>, progress: watch::Receiver<Progress> },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Fetcher {
    store: Arc<Store>,
    upstream: Upstream,
    offline: bool,
    flights: Mutex<HashMap<String, watch::Receiver<Progress>>>,
    turns: Arc<Semaphore>,
    longest: Duration,
    /// When what may change was asked for last.
    asked: Mutex<HashMap<String, Instant>>,
}

impl Fetcher {
    pub(super) fn new(store: Arc<Store>, upstream: Upstream, offline: bool) -> Self {
        Self {
            store,
            upstream,
            offline,
            flights: Mutex::default(),
            turns: Arc::new(Semaphore::new(FETCHES)),
            longest: LONGEST,
            asked: Mutex::default(),
        }
    }

    /// What is kept under a key, without asking anybody.
    pub(super) fn kept(&self, key: &str) -> Option<Arc<Kept>> {
        self.store.get(key).map(Arc::new)
    }

    /// Room for an answer that is made of what is kept.
    pub(super) fn answer(&self, share: &Arc<Share>) -> std::io::Result<Draft> {
        self.store.answer(share)
    }

    /// The whole thing, fetched or asked for again when that is due.
    pub(super) async fn whole(self: &Arc<Self>, order: Order, guest: &Guest) -> Result<Arc<Kept>, Fault> {
        match self.find(order, guest).await? {
            Found::Whole(kept) => Ok(kept),
            Found::Growing { mut progress, .. } => {
                let end = progress.wait_for(|now| matches!(now, Progress::Done(_) | Progress::Failed(_))).await;
                match end.as_deref() {
                    Ok(Progress::Done(kept)) => Ok(Arc::clone(kept)),
                    Ok(Progress::Failed(fault)) => Err(fault.clone()),
                    _ => Err(Fault::busy()),
                }
            }
        }
    }

    /// The thing, or as much of it as has come, with more to follow.
    pub(super) async fn find(self: &Arc<Self>, order: Order, guest: &Guest) -> Result<Found, Fault> {
        if let Some(kept) = self.usable(&order) {
            return Ok(Found::Whole(kept));
        }
        if self.offline {
            return Err(Fault::offline(&order.what));
        }
        let mut progress = self.join(order, guest).await?;
        // Beyond the first word nobody waits here.
        let now = progress.wait_for(|now| !matches!(now, Progress::Begun)).await.map(|now| now.clone());
        match now {
            Ok(Progress::Done(kept)) => Ok(Found::Whole(kept)),
            Ok(Progress::Growing { file, length, .. }) => Ok(Found::Growing { file, length, progress }),
            Ok(Progress::Failed(fault)) => Err(fault),
            Ok(Progress::Begun) | Err(_) => Err(Fault::busy()),
        }
    }

    /// What is kept and need not be asked for again.
    fn usable(&self, order: &Order) -> Option<Arc<Kept>> {
        let kept = self.store.get(&order.key)?;
        if order.changes {
            return (self.offline || self.is_fresh(&order.key)).then(|| Arc::new(kept));
        }
        match &order.expected {
            // It was fetched when nobody knew yet what it must be.
            Some(expected) if !expected.is_of(&kept.label.digests) => {
                tracing::error!(
                    order.key,
                    expected = expected.text(),
                    "a kept file is not what its registry says: dropped"
                );
                self.store.remove(&order.key);
                None
            }
            _ => Some(Arc::new(kept)),
        }
    }

    fn is_fresh(&self, key: &str) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(key).is_some_and(|then| then.elapsed() < FRESH)
    }

    fn note(&self, key: &str) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= MOST_NOTED {
            asked.clear();
        }
        asked.insert(key.to_owned(), Instant::now());
    }

    fn flight(&self, key: &str) -> Option<watch::Receiver<Progress>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Joins the fetch of the same thing, or begins one. It goes on when nobody waits for it any more: the next one will.
    async fn join(self: &Arc<Self>, order: Order, guest: &Guest) -> Result<watch::Receiver<Progress>, Fault> {
        if let Some(flight) = self.flight(&order.key) {
            return Ok(flight);
        }
        // Who asks has the turns before there is anything to join: else one build would wait for the turns of another, and what
        // nobody wants any more would still wait for its own.
        let turn = self.turn(&guest.share).await?;
        let (send, receive) = watch::channel(Progress::Begun);
        {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(flight) = flights.get(&order.key) {
                return Ok(flight.clone());
            }
            flights.insert(order.key.clone(), receive.clone());
        }
        let fetcher = Arc::clone(self);
        tokio::spawn(async move {
            let landing = Landing { fetcher: &fetcher, key: &order.key };
            let done = fetcher.fly(&order, &turn.share, &send).await;
            // Whoever comes from here on finds what is kept, and begins anew what is not.
            drop(landing);
            send.send_replace(done.map_or_else(Progress::Failed, Progress::Done));
            drop(turn);
        });
        Ok(receive)
    }

    /// First its own build's turn: one that asks for much waits for itself.
    async fn turn(&self, share: &Arc<Share>) -> Result<Turn, Fault> {
        let all = Arc::clone(&self.turns);
        let turns = async { (Arc::clone(&share.fetches).acquire_owned().await, all.acquire_owned().await) };
        let Ok((Ok(own), Ok(all))) = tokio::time::timeout(TURN, turns).await else { return Err(Fault::busy()) };
        Ok(Turn { share: Arc::clone(share), _own: own, _all: all })
    }

    async fn fly(
        &self,
        order: &Order,
        share: &Arc<Share>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Arc<Kept>, Fault> {
        // Another one may have brought it between the look and the turn.
        if let Some(kept) = self.usable(order) {
            return Ok(kept);
        }
        let before = if order.changes { self.kept(&order.key) } else { None };
        let fetched = tokio::time::timeout(self.longest, self.fetch(order, share, before.as_ref(), progress)).await;
        let fetched = fetched.unwrap_or_else(|_| {
            let text = format!("did not send all of {} within {} minutes", order.what, self.longest.as_secs() / 60);
            Err(Fault::away(&order.registry, text))
        });
        match (fetched, before) {
            (Ok(kept), _) => {
                if order.changes {
                    self.note(&order.key);
                }
                Ok(kept)
            }
            (Err(fault), Some(before)) if fault.is_away => {
                tracing::warn!(
                    order.what,
                    fault = fault.text,
                    "builds get what was known before: its registry is away"
                );
                self.note(&order.key);
                Ok(before)
            }
            (Err(fault), _) => Err(fault),
        }
    }

    async fn fetch(
        &self,
        order: &Order,
        share: &Arc<Share>,
        before: Option<&Arc<Kept>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Arc<Kept>, Fault> {
        let etag = before.and_then(|kept| kept.label.etag.as_deref());
        let response = self.upstream.get(&order.registry, &order.url, order.accept, etag).await?;
        match (response.status(), before) {
            (StatusCode::OK, _) => self.receive(order, share, response, progress).await.map(Arc::new),
            (StatusCode::NOT_MODIFIED, Some(before)) => Ok(Arc::clone(before)),
            (status, _) => Err(Fault::of_status(&order.registry, status, &order.what)),
        }
    }

    /// Writes an answer to the disk, and says how far it is.
    async fn receive(
        &self,
        order: &Order,
        share: &Arc<Share>,
        mut response: Response,
        progress: &watch::Sender<Progress>,
    ) -> Result<Kept, Fault> {
        // Nothing may take the whole cache.
        let most = order.most.min(self.store.limit() / 2);
        let too_large = || {
            let text = format!("sends more than {} MiB, the most that is taken, for {}", most >> 20, order.what);
            Fault::upstream(&order.registry, text)
        };
        let length = response.content_length();
        if length.is_some_and(|length| length > most) {
            return Err(too_large());
        }
        let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
        let mut label = Label {
            key: order.key.clone(),
            length: 0,
            from: response.url().to_string(),
            etag: etag_of(&response),
            content_type: content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned(),
            digests: Default::default(),
            checked: order.expected.is_some(),
        };
        let draft = self.store.draft(share).map_err(|error| Fault::host(&error))?;
        let file = draft.shared();
        let mut state = (draft, Hasher::default());
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            let chunk = response.chunk().await.map_err(|error| {
                let cause = slipway_chassis::chain(&error.without_url()).to_string();
                Fault::away(&order.registry, format!("broke off while it sent {}: {cause}", order.what))
            })?;
            let ended = chunk.is_none();
            piece.extend_from_slice(&chunk.unwrap_or_default());
            if state.0.written() + piece.len() as u64 > most {
                return Err(too_large());
            }
            if piece.len() >= PIECE || ended {
                state = append(state, std::mem::replace(&mut piece, Vec::with_capacity(PIECE))).await?;
                let written = state.0.written();
                // What may change is of use only when it is whole.
                if !order.changes && !ended {
                    progress.send_replace(Progress::Growing { file: Arc::clone(&file), written, length });
                }
            }
            if ended {
                break;
            }
        }
        let (draft, hasher) = state;
        label.length = draft.written();
        label.digests = hasher.finish();
        if length.is_some_and(|length| length != label.length) {
            return Err(Fault::away(&order.registry, format!("broke off while it sent {}", order.what)));
        }
        if let Some(expected) = order.expected.as_ref().filter(|expected| !expected.is_of(&label.digests)) {
            tracing::error!(order.url = %order.url, expected = expected.text(), "a registry sent something else than it says");
            let text = format!("sends {} with another digest than it names: {}", order.what, expected.text());
            return Err(Fault::upstream(&order.registry, text));
        }
        blocking(move || draft.keep(label)).await
    }
}

/// Held while something is fetched. The build's share with it: its next phase has what is left.
struct Turn {
    share: Arc<Share>,
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// Takes a fetch off the list, also when it panics.
struct Landing<'a> {
    fetcher: &'a Fetcher,
    key: &'a str,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.fetcher.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(self.key);
    }
}

async fn append((mut draft, mut hasher): (Draft, Hasher), piece: Vec<u8>) -> Result<(Draft, Hasher), Fault> {
    blocking(move || {
        hasher.update(&piece);
        draft.write(&piece)?;
        Ok((draft, hasher))
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    done.map_err(|error| {
        tracing::warn!(%error, "the cache of registries failed");
        Fault::host(&error)
    })
}

#[cfg(test)]
mod tests;
