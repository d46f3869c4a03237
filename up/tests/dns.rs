//! The resolver over real sockets: what it answers, what it refuses, and what it survives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_server::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Name, RData, RecordType};
use hickory_server::proto::serialize::binary::{BinDecodable as _, BinEncodable as _};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use slipway_chassis::Shutdown;
use slipway_test_support::eventually;
use slipway_up::dns::{DnsConfig, run};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

const LIMIT: Duration = Duration::from_secs(60);

/// After so long without an answer a client asks again.
const AGAIN: Duration = Duration::from_secs(2);

struct Resolver {
    address: SocketAddr,
    shutdown: Shutdown,
    _directory: TempDir,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

impl Resolver {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ready = directory.path().join("ready");
        let config = DnsConfig {
            domain: "slipway.localhost".to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            addresses: vec![Ipv4Addr::new(127, 0, 0, 1).into(), Ipv6Addr::LOCALHOST.into()],
            ready_file: Some(ready.clone()),
        };
        let shutdown = Shutdown::new();
        tokio::spawn(run(config, shutdown.clone()));
        let address = eventually("the resolver serves", LIMIT, || async {
            let text = std::fs::read_to_string(&ready).map_err(|error| error.to_string())?;
            let address = text.split('"').nth(3).and_then(|text| text.parse().ok());
            address.ok_or(text)
        })
        .await;
        Self { address, shutdown, _directory: directory }
    }

    /// Sends bytes by UDP and reads one answer. Sends them again, as every client of a resolver does: a datagram may be
    /// lost, here where others fill the resolver's queue.
    async fn udp(&self, bytes: &[u8]) -> Message {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        socket.connect(self.address).await.expect("connect");
        let mut answer = vec![0; 4096];
        let asking = async {
            loop {
                socket.send(bytes).await.expect("send");
                match tokio::time::timeout(AGAIN, socket.recv(&mut answer)).await {
                    Ok(length) => return length.expect("an answer"),
                    Err(_) => continue,
                }
            }
        };
        let length = tokio::time::timeout(LIMIT, asking).await.expect("in time");
        Message::from_bytes(&answer[..length]).expect("a message")
    }

    async fn tcp(&self, bytes: &[u8]) -> Message {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
        stream.write_all(&[&length[..], bytes].concat()).await.expect("send");
        let length = stream.read_u16().await.expect("a length");
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.expect("an answer");
        Message::from_bytes(&answer).expect("a message")
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.udp(&question(name, kind, DNSClass::IN)).await
    }
}

fn question(name: &str, kind: RecordType, class: DNSClass) -> Vec<u8> {
    let mut query = Query::query(Name::from_ascii(name).expect("a name"), kind);
    query.set_query_class(class);
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(query);
    message.to_bytes().expect("bytes")
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn every_name_of_the_platform_is_answered_at_any_depth() {
    let resolver = Resolver::start().await;
    for name in ["slipway.localhost.", "api.slipway.localhost.", "a.b.c.d.slipway.localhost.", "API.Slipway.LOCALHOST."]
    {
        let answer = resolver.ask(name, RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{name}");
        assert!(answer.metadata.authoritative && answer.metadata.id == 7);
        assert_eq!(addresses(&answer), [IpAddr::from(Ipv4Addr::LOCALHOST)], "{name}");
        assert_eq!(addresses(&resolver.ask(name, RecordType::AAAA).await), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
        let by_tcp = resolver.tcp(&question(name, RecordType::A, DNSClass::IN)).await;
        assert_eq!(addresses(&by_tcp), addresses(&answer));
    }
    // The name is there, without mail: an empty answer that may be kept, not "no such name".
    let mail = resolver.ask("api.slipway.localhost.", RecordType::MX).await;
    assert_eq!((mail.metadata.response_code, mail.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(mail.authorities.first().map(|record| record.record_type()), Some(RecordType::SOA));
}

#[tokio::test]
async fn other_names_are_refused_so_that_the_next_resolver_is_asked() {
    let resolver = Resolver::start().await;
    for name in ["example.com.", "localhost.", "xslipway.localhost.", "slipway.localhost.example.com.", "."] {
        let answer = resolver.ask(name, RecordType::A).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::Refused, 0), "{name}");
    }
    let chaos = resolver.udp(&question("version.slipway.localhost.", RecordType::TXT, DNSClass::CH)).await;
    assert_eq!(chaos.metadata.response_code, ResponseCode::Refused);
    let mut update = Message::new(9, MessageType::Query, OpCode::Update);
    update.add_query(Query::query(Name::from_ascii("slipway.localhost.").expect("a name"), RecordType::SOA));
    let refused = resolver.udp(&update.to_bytes().expect("bytes")).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::NotImp);
    // No question at all.
    let empty = Message::new(11, MessageType::Query, OpCode::Query).to_bytes().expect("bytes");
    assert_eq!(resolver.udp(&empty).await.metadata.response_code, ResponseCode::FormErr);
}

#[tokio::test]
async fn hostile_clients_do_not_end_it() {
    let resolver = Resolver::start().await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    let good = question("api.slipway.localhost.", RecordType::A, DNSClass::IN);
    let mut answer = good.clone();
    answer[2] |= 0x80;
    // A name that points at itself, counts that lie, an answer in place of a question, cut and empty datagrams.
    let looped = [&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    let mut lying = good.clone();
    lying[4..6].copy_from_slice(&u16::MAX.to_be_bytes());
    for bytes in [&looped, &lying, &answer, &good[..13].to_vec(), &Vec::new(), &vec![0xff; 4000]] {
        socket.send_to(bytes, resolver.address).await.expect("send");
    }
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..300 {
        let bytes = prop::collection::vec(any::<u8>(), 0..64).new_tree(&mut runner).expect("bytes").current();
        socket.send_to(&bytes, resolver.address).await.expect("send");
    }
    // Connections that promise a message and send none, or half of one.
    let mut open = Vec::new();
    for bytes in [&b"\xff\xff"[..], b"\x00", b"\x00\x20half"] {
        let mut stream = TcpStream::connect(resolver.address).await.expect("connect");
        stream.write_all(bytes).await.expect("send");
        open.push(stream);
    }
    assert_eq!(addresses(&resolver.udp(&good).await).len(), 1);
    assert_eq!(addresses(&resolver.tcp(&good).await).len(), 1);
}

#[tokio::test]
async fn reports_port_in_use_and_invalid_domain() {
    let holder = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    let config = |domain: &str| DnsConfig {
        domain: domain.to_owned(),
        listen: holder.local_addr().expect("an address"),
        addresses: Vec::new(),
        ready_file: None,
    };
    let error = run(config("slipway.localhost"), Shutdown::new()).await.expect_err("taken");
    assert!(error.to_string().contains("--dns"), "{error}");
    let error = run(config("a..b"), Shutdown::new()).await.expect_err("no name");
    assert!(error.to_string().contains("a..b"), "{error}");
}
