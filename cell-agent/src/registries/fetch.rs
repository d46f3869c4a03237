//! Serves files from the cache, or downloads them from their registries into the cache.
//!
//! Concurrent requests for one file share one download, and a large file is passed on while it is downloaded. A file whose
//! digest is wrong never reaches a build completely and is not cached; nor is a file for which nobody names a digest.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use reqwest::Response;
use slipway_chassis::clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::digests::Hasher;
use super::fault::Fault;
use super::freshness::Freshness;
use super::guests::{Guest, Share};
use super::order::Order;
use super::store::{CachedFile, Draft, Label, Store, content};
use super::upstream::{Upstream, etag_of, is_coded};

/// Fetches of all builds at a time.
const FETCHES: usize = 32;
/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(60);
/// All of one fetch. As long as two builds may take: enough for the largest file by a slow line, and an end for a registry that
/// sends a byte a minute and has a turn all the while.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// Written to the disk at once.
const PIECE: usize = 256 << 10;
/// Documents that are read at a time: each may take some tens of megabytes of memory.
const READING: usize = 2;

/// How far a fetch is.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    Begun,
    Growing { file: Arc<File>, written: u64, length: Option<u64> },
    Done(Arc<CachedFile>),
    Failed(Fault),
}

/// A file for a build: complete, or while it is downloaded.
#[derive(Debug)]
pub(super) enum Fetched {
    Whole(Arc<CachedFile>),
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
    freshness: Freshness,
    reading: Semaphore,
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
            freshness: Freshness::default(),
            reading: Semaphore::new(READING),
        }
    }

    /// What is cached under a key; asks no registry.
    pub(super) fn cached(&self, key: &str) -> Option<Arc<CachedFile>> {
        self.store.get(key).map(Arc::new)
    }

    pub(super) fn is_offline(&self) -> bool {
        self.offline
    }

    /// Whether this can be had: what is not kept can be fetched, but offline.
    pub(super) fn can_have(&self, file: &Order) -> bool {
        !self.offline || self.store.has(&file.key)
    }

    /// The cached document, unless it is in doubt.
    pub(super) fn known(&self, document: &Order) -> Option<Arc<CachedFile>> {
        if !self.offline && self.freshness.is_doubted(document) { None } else { self.cached(&document.key) }
    }

    /// Those of a document's forms that are known, with the registry's last word first.
    pub(super) fn newest(&self, forms: impl Iterator<Item = Order>) -> Vec<Arc<CachedFile>> {
        let mut known: Vec<_> = forms.filter_map(|form| Some((self.known(&form)?, form))).collect();
        known.sort_by_key(|(cached, form)| std::cmp::Reverse((self.freshness.last(form), cached.label.fetched)));
        known.into_iter().map(|(cached, _)| cached).collect()
    }

    /// What `work` makes of a document. It is in memory for as long as that takes, of few documents at a time.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        file: &Arc<File>,
        length: u64,
        work: impl FnOnce(Vec<u8>) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let Ok(_turn) = self.reading.acquire().await else { return Err(Fault::busy()) };
        let file = Arc::clone(file);
        blocking(move || content(&file, length).map(work)).await
    }

    /// Room for an answer that is made of what is kept.
    pub(super) fn answer(&self, share: &Arc<Share>) -> std::io::Result<Draft> {
        self.store.answer(share)
    }

    /// The whole thing, fetched or asked for again when that is due.
    pub(super) async fn whole(self: &Arc<Self>, order: Order, guest: &Guest) -> Result<Arc<CachedFile>, Fault> {
        match self.find(order, guest).await? {
            Fetched::Whole(cached) => Ok(cached),
            Fetched::Growing { mut progress, .. } => {
                let end = progress.wait_for(|now| matches!(now, Progress::Done(_) | Progress::Failed(_))).await;
                match end.as_deref() {
                    Ok(Progress::Done(cached)) => Ok(Arc::clone(cached)),
                    Ok(Progress::Failed(fault)) => Err(fault.clone()),
                    _ => Err(Fault::busy()),
                }
            }
        }
    }

    /// The thing, or as much of it as has come, with more to follow.
    pub(super) async fn find(self: &Arc<Self>, order: Order, guest: &Guest) -> Result<Fetched, Fault> {
        if let Some(cached) = self.usable(&order) {
            return Ok(Fetched::Whole(cached));
        }
        if self.offline {
            return Err(Fault::offline(&order.what));
        }
        let (mut progress, is_own) = self.join(&order, guest).await?;
        // Beyond the first word nobody waits here.
        let mut now = begun(&mut progress).await;
        if !is_own && matches!(&now, Ok(Progress::Failed(fault)) if fault.status == StatusCode::SERVICE_UNAVAILABLE) {
            // What another build has no room for this one may have.
            (progress, _) = self.join(&order, guest).await?;
            now = begun(&mut progress).await;
        }
        match now {
            Ok(Progress::Done(cached)) => Ok(Fetched::Whole(cached)),
            Ok(Progress::Growing { file, length, .. }) => Ok(Fetched::Growing { file, length, progress }),
            Ok(Progress::Failed(fault)) => Err(fault),
            Ok(Progress::Begun) | Err(_) => Err(Fault::busy()),
        }
    }

    /// What is cached and need not be asked for again.
    fn usable(&self, order: &Order) -> Option<Arc<CachedFile>> {
        let is_good = |cached: &CachedFile| match &order.expected {
            Some(expected) => expected.is_of(&cached.label.digests),
            None => order.is_document() && (self.offline || self.freshness.is_fresh(order)),
        };
        self.cached(&order.key).filter(|cached| is_good(cached))
    }

    fn flight(&self, name: &str) -> Option<watch::Receiver<Progress>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Joins the fetch of the same thing, or begins one, which is told. It goes on when nobody waits for it any more: the next one
    /// will.
    async fn join(self: &Arc<Self>, order: &Order, guest: &Guest) -> Result<(watch::Receiver<Progress>, bool), Fault> {
        let name = order.flight();
        if let Some(flight) = self.flight(&name) {
            return Ok((flight, false));
        }
        // Who asks has the turns before there is anything to join: else one build would wait for the turns of another, and what
        // nobody wants any more would still wait for its own.
        let turn = self.turn(&guest.share).await?;
        let (send, receive) = watch::channel(Progress::Begun);
        {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(flight) = flights.get(&name) {
                return Ok((flight.clone(), false));
            }
            flights.insert(name.clone(), receive.clone());
        }
        let (fetcher, order) = (Arc::clone(self), order.clone());
        tokio::spawn(async move {
            let landing = FlightGuard { fetcher: &fetcher, name: &name };
            let done = fetcher.fly(&order, &turn.share, &send).await;
            // Whoever comes from here on finds what is kept, and begins anew what is not.
            drop(landing);
            send.send_replace(done.map_or_else(Progress::Failed, Progress::Done));
            drop(turn);
        });
        Ok((receive, true))
    }

    /// First its own build's turn: one that asks for much waits for itself.
    async fn turn(&self, share: &Arc<Share>) -> Result<FetchPermit, Fault> {
        let all = Arc::clone(&self.turns);
        let turns = async { (Arc::clone(&share.fetches).acquire_owned().await, all.acquire_owned().await) };
        let Ok((Ok(own), Ok(all))) = tokio::time::timeout(TURN, turns).await else { return Err(Fault::busy()) };
        Ok(FetchPermit { share: Arc::clone(share), _own: own, _all: all })
    }

    async fn fly(
        &self,
        order: &Order,
        share: &Arc<Share>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Arc<CachedFile>, Fault> {
        // Another one may have brought it between the look and the turn.
        if let Some(cached) = self.usable(order) {
            return Ok(cached);
        }
        let before = if order.is_document() { self.cached(&order.key) } else { None };
        let fetched = tokio::time::timeout(self.longest, self.fetch(order, share, before.as_ref(), progress)).await;
        let fetched = fetched.unwrap_or_else(|_| {
            let text = format!("did not send all of {} within {} minutes", order.what, self.longest.as_secs() / 60);
            Err(Fault::unavailable(&order.registry, text))
        });
        match (fetched, before) {
            (Ok(cached), _) => {
                if order.is_document() {
                    self.freshness.note(order);
                }
                Ok(cached)
            }
            (Err(fault), Some(before)) if fault.is_unavailable => {
                tracing::warn!(
                    order.what,
                    fault = fault.text,
                    "builds get what was known before: its registry is away"
                );
                self.freshness.note(order);
                Ok(before)
            }
            (Err(fault), _) => Err(fault),
        }
    }

    async fn fetch(
        &self,
        order: &Order,
        share: &Arc<Share>,
        before: Option<&Arc<CachedFile>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Arc<CachedFile>, Fault> {
        let etag = before.and_then(|cached| cached.label.etag.as_deref());
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
    ) -> Result<CachedFile, Fault> {
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
        if order.is_document() && is_coded(&response) {
            let text = format!("sends {} in a coding that nobody has asked for", order.what);
            return Err(Fault::upstream(&order.registry, text));
        }
        let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
        let mut label = Label {
            key: order.key.clone(),
            length: 0,
            from: response.url().to_string(),
            etag: etag_of(&response),
            content_type: content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned(),
            digests: Default::default(),
            fetched: u64::try_from(clock::unix_ms()).unwrap_or_default(),
        };
        let draft = self.store.draft(share).map_err(|error| Fault::host(&error))?;
        let file = draft.shared();
        let mut state = (draft, Hasher::default());
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            let chunk = response.chunk().await.map_err(|error| {
                let cause = slipway_chassis::chain(&error.without_url()).to_string();
                Fault::unavailable(&order.registry, format!("broke off while it sent {}: {cause}", order.what))
            })?;
            let ended = chunk.is_none();
            piece.extend_from_slice(&chunk.unwrap_or_default());
            if state.0.written() + piece.len() as u64 > most {
                return Err(too_large());
            }
            if piece.len() >= PIECE || ended {
                state = append(state, std::mem::replace(&mut piece, Vec::with_capacity(PIECE))).await?;
                let written = state.0.written();
                // A document is of use only when it is whole.
                if !order.is_document() && !ended {
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
            return Err(Fault::unavailable(&order.registry, format!("broke off while it sent {}", order.what)));
        }
        if let Some(expected) = order.expected.as_ref().filter(|expected| !expected.is_of(&label.digests)) {
            tracing::error!(order.url = %order.url, expected = expected.text(), "a registry sent something else than it says");
            self.freshness.doubt(order);
            return Err(Fault::mismatch(&order.registry, &order.what, &expected.text()));
        }
        if let Some(check) = order.check {
            let about = label.clone();
            let checked = self.read(&file, label.length, move |content| check(&about, &content)).await?;
            let describe = |error| format!("sends something else than a document of {}: {error}", order.what);
            checked.map_err(|error| Fault::upstream(&order.registry, describe(error)))?;
        } else if order.expected.is_none() {
            // A page for people would stay in the place of a file for ever.
            return Ok(draft.hand_on(label));
        }
        blocking(move || draft.keep(label)).await
    }
}

/// The first word of a fetch.
async fn begun(progress: &mut watch::Receiver<Progress>) -> Result<Progress, watch::error::RecvError> {
    progress.wait_for(|now| !matches!(now, Progress::Begun)).await.map(|now| now.clone())
}

/// Held while something is fetched. The build's share with it: its next phase has what is left.
struct FetchPermit {
    share: Arc<Share>,
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// Takes a fetch off the list, also when it panics.
struct FlightGuard<'a> {
    fetcher: &'a Fetcher,
    name: &'a str,
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        self.fetcher.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
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
