//! `slipway up --dns`: a resolver for the platform's own names, and for nothing else.
//!
//! Many programs know nothing of `*.localhost`, and no host file knows wildcards. This answers every name at or below
//! the platform's domain with the addresses of its router, whatever its depth, and refuses all other names, so that a
//! machine that asks it first goes on to its usual resolver.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, SOA};
use hickory_server::proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use serde::{Deserialize, Serialize};
use slipway_chassis::config::Validate;
use slipway_chassis::files::{self, Durability};
use slipway_chassis::{Shutdown, chain};
use tokio::net::{TcpListener, UdpSocket};

/// How long an answer may be kept, in seconds: short, because a port or an address changes with the next `up`.
const TTL_S: u32 = 60;
/// Ports that are tried when any will do.
const PORT_TRIES: u32 = 16;
/// A TCP client that says nothing for this long is let go.
const IDLE: Duration = Duration::from_secs(10);
/// Answers that one TCP client may leave unread.
const UNREAD: usize = 64;

/// The resolver's file, written by `slipway up`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsConfig {
    /// The domain that is answered for, with everything below it.
    pub domain: String,
    /// Where UDP and TCP are served.
    pub listen: SocketAddr,
    /// What all names mean.
    pub addresses: Vec<IpAddr>,
    /// Written once it serves.
    pub ready_file: Option<PathBuf>,
}

impl Validate for DnsConfig {
    fn problems(&self) -> Vec<String> {
        let empty = self.addresses.is_empty().then(|| "addresses: name at least one".to_owned());
        empty.into_iter().collect()
    }
}

/// Why the resolver could not run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain is no name.
    #[error("{domain:?} is no domain name")]
    Domain {
        /// As configured.
        domain: String,
        /// The cause.
        #[source]
        source: hickory_server::proto::ProtoError,
    },
    /// The address is taken, or not of this machine.
    #[error("cannot listen on {address}: choose another port with --dns=PORT")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The ready file.
    #[error("cannot write {path}")]
    Ready {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A socket failed.
    #[error("the resolver's sockets failed")]
    Serve(#[source] hickory_server::net::NetError),
}

/// Serves until shutdown.
///
/// # Errors
/// When it cannot listen, or a socket fails for good.
pub async fn run(config: DnsConfig, shutdown: Shutdown) -> Result<(), DnsError> {
    let names = Names::new(&config)?;
    let listen = |source| DnsError::Listen { address: config.listen, source };
    let (address, socket, listener) = bind(config.listen).await.map_err(listen)?;
    let mut server = Server::new(names);
    server.register_socket(socket);
    server.register_listener(listener, IDLE, UNREAD);
    if let Some(path) = &config.ready_file {
        let text = format!("{{\"listen\":\"{address}\"}}\n");
        files::write(path, text, 0o640, Durability::None)
            .map_err(|source| DnsError::Ready { path: path.clone(), source })?;
    }
    tracing::info!(%address, domain = config.domain, "names are answered");
    let stop = server.shutdown_token().clone();
    tokio::select! {
        ended = server.block_until_done() => ended.map_err(DnsError::Serve),
        () = shutdown.requested() => {
            stop.cancel();
            server.block_until_done().await.map_err(DnsError::Serve)
        }
    }
}

/// The same port for both protocols.
async fn bind(listen: SocketAddr) -> std::io::Result<(SocketAddr, UdpSocket, TcpListener)> {
    let mut tries = if listen.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let socket = UdpSocket::bind(listen).await?;
        let address = socket.local_addr()?;
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok((address, socket, listener)),
            // The kernel chose a port that is free for UDP; for TCP somebody has it.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// What is answered.
struct Names {
    domain: LowerName,
    v4: Vec<RData>,
    v6: Vec<RData>,
    soa: Record,
}

impl Names {
    fn new(config: &DnsConfig) -> Result<Self, DnsError> {
        let bad = |source| DnsError::Domain { domain: config.domain.clone(), source };
        let mut domain = Name::from_ascii(&config.domain).map_err(bad)?;
        domain.set_fqdn(true);
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in &config.addresses {
            match address {
                IpAddr::V4(address) => v4.push(RData::A(A(*address))),
                IpAddr::V6(address) => v6.push(RData::AAAA(AAAA(*address))),
            }
        }
        let keep = i32::try_from(TTL_S).unwrap_or(i32::MAX);
        let soa = SOA::new(domain.clone(), domain.clone(), 1, keep, keep, keep, TTL_S);
        let soa = Record::from_rdata(domain.clone(), TTL_S, RData::SOA(soa));
        Ok(Self { domain: domain.into(), v4, v6, soa })
    }

    /// The code and the records for a question. A name of ours without records of that type exists all the same.
    fn answer(&self, name: &LowerName, class: DNSClass, kind: RecordType) -> (ResponseCode, Vec<Record>) {
        if class != DNSClass::IN || !self.domain.zone_of(name) {
            return (ResponseCode::Refused, Vec::new());
        }
        let data = match kind {
            RecordType::A => self.v4.as_slice(),
            RecordType::AAAA => self.v6.as_slice(),
            RecordType::SOA if *name == self.domain => return (ResponseCode::NoError, vec![self.soa.clone()]),
            _ => &[],
        };
        let name = Name::from(name);
        (ResponseCode::NoError, data.iter().map(|data| Record::from_rdata(name.clone(), TTL_S, data.clone())).collect())
    }
}

#[async_trait::async_trait]
impl RequestHandler for Names {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let (code, answers) = match (request.metadata.op_code, request.request_info()) {
            (OpCode::Query, Ok(asked)) => {
                self.answer(asked.query.name(), asked.query.query_class(), asked.query.query_type())
            }
            (OpCode::Query, Err(_)) => (ResponseCode::FormErr, Vec::new()),
            _ => (ResponseCode::NotImp, Vec::new()),
        };
        metadata.response_code = code;
        metadata.authoritative = code == ResponseCode::NoError;
        // An empty answer may be kept as long as the SOA beside it says.
        let soa = (metadata.authoritative && answers.is_empty()).then_some(&self.soa);
        let message = MessageResponseBuilder::from_message_request(request).build(metadata, &answers, [], soa, []);
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                // A client that has gone, usually.
                tracing::debug!(error = %chain(&error), "an answer was not sent");
                let mut failed = metadata;
                failed.response_code = ResponseCode::ServFail;
                ResponseInfo::from(hickory_server::proto::op::Header { metadata: failed, counts: Default::default() })
            }
        }
    }
}
