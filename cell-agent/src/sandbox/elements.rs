//! Changes of single elements of nftables sets, by netlink: on the start path a forked `nft` would cost 3 ms each.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use slipway_helper::netlink::{CREATE, Message, Socket};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NFTABLES: u16 = 10;
const NEW_ELEMENT: u16 = (NFTABLES << 8) | 12;
const DELETE_ELEMENT: u16 = (NFTABLES << 8) | 14;
const IPV4: u8 = 2;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const JUMP: i32 = -3;

/// Of the kernel's table of connections.
const DELETE_CONNECTIONS: u16 = (1 << 8) | 2;
const CONNECTION_MARK: u16 = 8;
const CONNECTION_MARK_MASK: u16 = 21;

/// The mark of connections that an address began, as the rules set it.
pub(super) fn mark(address: Ipv4Addr) -> u32 {
    address.into()
}

/// Adds and removes elements of one table's sets.
#[derive(Debug)]
pub(super) struct Elements {
    table: String,
    /// One conversation at a time.
    socket: Mutex<Socket>,
}

impl Elements {
    pub(super) fn open(table: &str) -> io::Result<Self> {
        Ok(Self { table: table.to_owned(), socket: Mutex::new(Socket::netfilter()?) })
    }

    /// Puts an address into a set, with the chain to jump to when the set is a map of verdicts.
    pub(super) fn add(&self, set: &str, address: Ipv4Addr, jump: Option<&str>) -> io::Result<()> {
        match self.send(&[(NEW_ELEMENT, CREATE)], set, address, jump) {
            // There with another chain: replaced in one batch, so that no packet meets the map without the address.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::EBUSY)) => {
                self.send(&[(DELETE_ELEMENT, 0), (NEW_ELEMENT, CREATE)], set, address, jump)
            }
            other => other,
        }
    }

    /// Takes an address out of a set; one that is not there is no error.
    pub(super) fn remove(&self, set: &str, address: Ipv4Addr) -> io::Result<()> {
        match self.send(&[(DELETE_ELEMENT, 0)], set, address, None) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// As [`Self::remove`] for a set without verdicts, whose elements are mostly not there: a batch that is refused makes
    /// the kernel wait until no processor reads the rules (several milliseconds), so the address is added first.
    pub(super) fn clear(&self, set: &str, address: Ipv4Addr) -> io::Result<()> {
        self.send(&[(NEW_ELEMENT, CREATE), (DELETE_ELEMENT, 0)], set, address, None)
    }

    /// Forgets all connections that an address began. What comes for them would reach the next sandbox with the address,
    /// and what that one sends on them would pass whatever its rules say.
    pub(super) fn forget_connections(&self, address: Ipv4Addr) -> io::Result<()> {
        let message = Message::new(DELETE_CONNECTIONS, 0, &[IPV4, 0, 0, 0])
            .attribute(CONNECTION_MARK, &mark(address).to_be_bytes())
            .attribute(CONNECTION_MARK_MASK, &u32::MAX.to_be_bytes());
        self.converse(vec![message])
    }

    /// One batch: all of the changes or none.
    fn send(&self, changes: &[(u16, u16)], set: &str, address: Ipv4Addr, jump: Option<&str>) -> io::Result<()> {
        let [high, low] = NFTABLES.to_be_bytes();
        let batch = [0, 0, high, low];
        let change = |(kind, flags): &(u16, u16)| {
            let message = Message::new(*kind, *flags, &[IPV4, 0, 0, 0]).text(LIST_TABLE, &self.table);
            message.text(LIST_SET, set).nested(LIST_ELEMENTS, &[], |list| {
                list.nested(ELEMENT, &[], |element| {
                    let element = element.nested(ELEMENT_KEY, &[], |key| key.attribute(DATA_VALUE, &address.octets()));
                    let Some(chain) = jump.filter(|_| *kind == NEW_ELEMENT) else { return element };
                    element.nested(ELEMENT_DATA, &[], |data| {
                        data.nested(DATA_VERDICT, &[], |verdict| {
                            verdict.attribute(VERDICT_CODE, &JUMP.to_be_bytes()).text(VERDICT_CHAIN, chain)
                        })
                    })
                })
            })
        };
        let mut messages = vec![Message::silent(BATCH_BEGIN, &batch)];
        messages.extend(changes.iter().map(change));
        messages.push(Message::silent(BATCH_END, &batch));
        self.converse(messages)
    }

    fn converse(&self, messages: Vec<Message>) -> io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = socket.request(messages);
        if let Err(error) = &answer
            && (error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS))
        {
            // Not the kernel's word on the change, but a conversation that broke off: the next one begins afresh.
            *socket = Socket::netfilter()?;
        }
        answer
    }
}
