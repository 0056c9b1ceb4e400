//! KRPC, the server's half: queries in, answers and errors out.
//!
//! Source: BEP 5, BEP 42 for `ip`, BEP 44 for `get` and `put`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{
    Item,
    bencode::Value,
    storage::{self, Target},
};

/// Bytes of a transaction id. Two are usual, mainline's client takes four.
const TRANSACTION_LEN_MAX: usize = 16;

/// Malformed packet, bad token or arguments.
pub(super) const BAD_ARGUMENTS: u16 = 203;
const UNKNOWN_METHOD: u16 = 204;

/// A query, and the id under which it wants its answer.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) transaction: &'a [u8],
    /// What is asked, or the error code that it earns.
    pub(super) query: Result<Query<'a>, u16>,
}

#[derive(Debug)]
pub(super) enum Query<'a> {
    Ping,
    FindNode { target: Target },
    GetPeers { target: Target },
    Get { target: Target, seq: Option<i64> },
    Put { token: &'a [u8], request: storage::Request<'a> },
}

impl<'a> Message<'a> {
    /// Reads a query. None if there is nothing in it that could be answered.
    pub(super) fn read(packet: &'a [u8]) -> Option<Self> {
        let message = Value::read(packet)?;
        let transaction = message.get("t")?.bytes()?;
        let is_query = message.get("y")?.bytes()? == b"q";
        if !is_query || transaction.len() > TRANSACTION_LEN_MAX {
            return None;
        }
        let method = message.get("q")?.bytes()?;
        let arguments = message.get("a")?;
        let query = match method {
            b"ping" => Some(Query::Ping),
            b"find_node" => array(arguments, "target").map(|target| Query::FindNode { target }),
            b"get_peers" => array(arguments, "info_hash").map(|target| Query::GetPeers { target }),
            b"get" => array(arguments, "target")
                .map(|target| Query::Get { target, seq: integer(arguments, "seq") }),
            b"put" => put(arguments),
            _ => return Some(Self { transaction, query: Err(UNKNOWN_METHOD) }),
        };
        Some(Self { transaction, query: query.ok_or(BAD_ARGUMENTS) })
    }
}

/// A put of a mutable item; immutable ones have no key, and aren't kept here.
fn put<'a>(arguments: &Value<'a>) -> Option<Query<'a>> {
    let item = Item {
        seq: integer(arguments, "seq")?,
        signature: array(arguments, "sig")?,
        value: arguments.get("v")?.bytes()?.to_vec(),
    };
    let salt = match arguments.get("salt") {
        Some(salt) => Some(salt.bytes()?),
        None => None,
    };
    let (key, cas) = (array(arguments, "k")?, integer(arguments, "cas"));
    let token = arguments.get("token")?.bytes()?;
    Some(Query::Put { token, request: storage::Request { key, salt, item, cas } })
}

fn array<const N: usize>(arguments: &Value<'_>, name: &str) -> Option<[u8; N]> {
    arguments.get(name)?.bytes()?.try_into().ok()
}

fn integer(arguments: &Value<'_>, name: &str) -> Option<i64> {
    arguments.get(name)?.integer()
}

/// What an answer says beside the id of who gives it.
#[derive(Debug, Default)]
pub(super) struct Answer<'a> {
    /// Compact contacts, 26 bytes each.
    pub(super) nodes: Option<&'a [u8]>,
    pub(super) token: Option<&'a [u8]>,
    pub(super) seq: Option<i64>,
    /// The item itself, which a `get` that knows its seq doesn't need.
    pub(super) item: Option<(&'a [u8; 32], &'a Item)>,
}

impl Answer<'_> {
    pub(super) fn write(&self, transaction: &[u8], id: &[u8; 20], to: SocketAddr) -> Vec<u8> {
        let mut answer = BTreeMap::from([(b"id".as_slice(), Value::Bytes(id))]);
        answer.extend(self.nodes.map(|nodes| (b"nodes".as_slice(), Value::Bytes(nodes))));
        answer.extend(self.token.map(|token| (b"token".as_slice(), Value::Bytes(token))));
        answer.extend(self.seq.map(|seq| (b"seq".as_slice(), Value::Integer(seq))));
        if let Some((key, item)) = self.item {
            answer.insert(b"k", Value::Bytes(key));
            answer.insert(b"sig", Value::Bytes(&item.signature));
            answer.insert(b"v", Value::Bytes(&item.value));
        }
        let ip = compact(to);
        let message = Value::dict([
            ("ip", Value::Bytes(&ip)),
            ("r", Value::Dict(answer)),
            ("t", Value::Bytes(transaction)),
            ("y", Value::Bytes(b"r")),
        ]);
        packet(&message)
    }
}

pub(super) fn error(transaction: &[u8], code: u16) -> Vec<u8> {
    let text: &[u8] = match code {
        202 => b"storage is full",
        204 => b"method unknown",
        205 => b"value is too long",
        206 => b"signature is invalid",
        207 => b"salt is too long",
        301 => b"cas does not match",
        302 => b"seq is not the newest",
        _ => b"bad token or arguments",
    };
    let error = Value::List(vec![Value::Integer(code.into()), Value::Bytes(text)]);
    let message =
        Value::dict([("e", error), ("t", Value::Bytes(transaction)), ("y", Value::Bytes(b"e"))]);
    packet(&message)
}

fn packet(message: &Value<'_>) -> Vec<u8> {
    let mut packet = Vec::new();
    message.write(&mut packet);
    packet
}

/// An IPv4 address and port in six bytes; nothing for IPv6, which this DHT doesn't speak.
pub(super) fn compact(address: SocketAddr) -> Vec<u8> {
    match address.ip() {
        IpAddr::V4(ip) => [&ip.octets()[..], &address.port().to_be_bytes()].concat(),
        IpAddr::V6(_) => Vec::new(),
    }
}
