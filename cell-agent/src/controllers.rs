//! Unary and streaming calls to whichever controller answers: specs and blobs. Sessions are in [`crate::session`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use slipway_protocol::Credentials;
use slipway_protocol::dial::{Dialer, ExpectedPeer};
use slipway_protocol::v1::blobs_client::BlobsClient;
use slipway_protocol::v1::cell_control_client::CellControlClient;
use slipway_protocol::v1::{BlobChunk, BlobInfo, BlobRequest, SpecRequest};
use tokio::io::AsyncReadExt as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// A whole set, or a batch of specs with large environments, may pass tonic's default of 4 MiB.
pub const MAX_MESSAGE: usize = 64 << 20;
const CHUNK: usize = 256 << 10;

/// A connection could not be configured.
#[derive(Debug, thiserror::Error)]
#[error("the connection to the controller {address} cannot be set up")]
pub struct ConnectError {
    address: SocketAddr,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Why a controller did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No controller could be reached: to be tried again for as long as it takes.
    #[error("no controller can be reached")]
    Unreachable(#[source] Box<Status>),
    /// A controller answered, and will not answer otherwise soon.
    #[error("a controller refused")]
    Refused(#[source] Box<Status>),
    /// A local file could not be read.
    #[error("reading {path}")]
    File {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                Self::Unreachable(Box::new(status))
            }
            _ => Self::Refused(Box::new(status)),
        }
    }
}

/// Channels to all controllers of the configuration. They connect when used, and again when lost.
#[derive(Debug)]
pub struct Controllers {
    channels: Vec<(SocketAddr, Channel)>,
    /// The one that answered last: asked first.
    last: AtomicUsize,
}

/// A channel to one controller.
///
/// # Errors
/// When the credentials cannot be used.
pub fn channel(address: SocketAddr, credentials: &Credentials) -> Result<Channel, ConnectError> {
    let dialer = Dialer::new(credentials).map_err(|error| ConnectError { address, source: error.into() })?;
    let settings = |endpoint: Endpoint| {
        endpoint
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
    };
    let channel = dialer.channel(address, ExpectedPeer::CONTROLLER, settings);
    channel.map_err(|error| ConnectError { address, source: error.into() })
}

impl Controllers {
    /// Channels to these controllers.
    ///
    /// # Errors
    /// When the credentials cannot be used.
    pub fn new(addresses: &[SocketAddr], credentials: &Credentials) -> Result<Self, ConnectError> {
        let mut channels = Vec::new();
        for address in addresses {
            channels.push((*address, channel(*address, credentials)?));
        }
        Ok(Self { channels, last: AtomicUsize::new(0) })
    }

    /// All channels with their addresses.
    pub fn channels(&self) -> &[(SocketAddr, Channel)] {
        &self.channels
    }

    /// Asks one controller after the other, beginning with the one that answered last.
    async fn ask<T, Fut>(&self, call: impl Fn(Channel) -> Fut) -> Result<T, CallError>
    where
        Fut: Future<Output = Result<T, CallError>>,
    {
        let count = self.channels.len();
        let first = self.last.load(Ordering::Relaxed);
        let mut failure = CallError::from(Status::unavailable("no controller is configured"));
        for place in (0..count).map(|step| (first + step) % count) {
            match call(self.channels[place].1.clone()).await {
                Ok(value) => {
                    self.last.store(place, Ordering::Relaxed);
                    return Ok(value);
                }
                // A refusal says more than a dead connection: keep it.
                Err(error) if matches!(failure, CallError::Refused(_)) => drop(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Bodies by digest; a digest that no controller knows is missing.
    ///
    /// # Errors
    /// When no controller answers.
    pub async fn specs(&self, digests: &[Bytes]) -> Result<BTreeMap<Bytes, Bytes>, CallError> {
        self.ask(|channel| async move {
            let mut client = CellControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
            let request = SpecRequest { digests: digests.to_vec() };
            let call = tokio::time::timeout(Duration::from_secs(20), client.get_specs(request));
            let reply = call.await.map_err(|_| Status::deadline_exceeded("specs were not sent within 20 s"))??;
            Ok(reply.into_inner().specs.into_iter().map(|spec| (spec.digest, spec.body)).collect())
        })
        .await
    }

    /// A blob's bytes from `offset` on.
    ///
    /// # Errors
    /// When no controller has it or answers.
    pub async fn blob(&self, digest: &Bytes, offset: u64) -> Result<Streaming<BlobChunk>, CallError> {
        self.ask(|channel| async move {
            let request = BlobRequest { digest: digest.clone(), offset };
            Ok(BlobsClient::new(channel).get(request).await?.into_inner())
        })
        .await
    }

    /// Uploads a file; answers what the controller stored.
    ///
    /// # Errors
    /// When no controller takes it, or the file cannot be read.
    pub async fn put(&self, path: &Path) -> Result<BlobInfo, CallError> {
        self.ask(|channel| async move {
            let open = tokio::fs::File::open(path).await;
            let file = open.map_err(|source| CallError::File { path: path.display().to_string(), source })?;
            let chunks = futures::stream::unfold(file, |mut file| async move {
                let mut data = vec![0; CHUNK];
                match file.read(&mut data).await {
                    Ok(0) => None,
                    Ok(count) => {
                        data.truncate(count);
                        Some((BlobChunk { data: data.into() }, file))
                    }
                    Err(error) => {
                        // The stream ends early; the digest in the answer shows it.
                        tracing::warn!(%error, "a file could not be read while it was uploaded");
                        None
                    }
                }
            });
            Ok(BlobsClient::new(channel).put(chunks).await?.into_inner())
        })
        .await
    }
}
