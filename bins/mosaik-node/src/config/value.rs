//! What each setting takes: from text to value, or to the sentence that says what it takes.

use std::{net::SocketAddr, path::PathBuf};

use super::Percent;
use crate::retention;

/// Bytes of a node's name: what `Hello` carries.
const NAME_LEN_MAX: usize = 64;

/// The longest interval and jitter, in seconds: a day. Longer, and a node would look dead.
const SYNC_SECONDS_MAX: u64 = 86_400;

/// The host's name, made fit for a node's.
pub(super) fn default_name(host_name: &str) -> String {
    let mut name: String = host_name.chars().filter(|c| !c.is_control()).collect();
    while name.len() > NAME_LEN_MAX {
        name.pop();
    }
    if name.is_empty() { "unnamed".into() } else { name }
}

/// A path, from the root on: what is printed of it must hold in every directory.
pub(super) fn parse_path(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|_| "a path is needed".into())
}

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_LEN_MAX || text.chars().any(char::is_control) {
        return Err(format!("a name has 1 to {NAME_LEN_MAX} bytes and no control characters"));
    }
    Ok(text.into())
}

pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give ADDR:PORT, as 0.0.0.0:4242 or [::]:4242; port 0 is any".into())
}

pub(super) fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("give true or false".into()),
    }
}

pub(super) fn parse_host_port(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let is_host = !host.is_empty() && !host.contains(char::is_whitespace);
    match port.parse::<u16>() {
        Ok(1..) if is_host => Ok(text.into()),
        _ => Err("give host:port, as router.example.net:6881".into()),
    }
}

pub(super) fn parse_relay(text: &str) -> Result<String, String> {
    let has_scheme = text.starts_with("https://") || text.starts_with("http://");
    match text.parse::<iroh::RelayUrl>() {
        Ok(_) if has_scheme => Ok(text.into()),
        _ => Err("give a URL, as https://relay.example.net".into()),
    }
}

pub(super) fn parse_seconds(text: &str, seconds_min: u64) -> Result<u64, String> {
    match text.parse() {
        Ok(seconds) if (seconds_min..=SYNC_SECONDS_MAX).contains(&seconds) => Ok(seconds),
        _ => Err(format!("give whole seconds, {seconds_min} to {SYNC_SECONDS_MAX}")),
    }
}

/// More would take half a gigabyte of memory, idle.
const CONNECTIONS_MAX: usize = 4096;

pub(super) fn parse_connections_max(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(connections @ 1..=CONNECTIONS_MAX) => Ok(connections),
        _ => Err(format!("give a whole number of connections, 1 to {CONNECTIONS_MAX}")),
    }
}

/// Less than an empty store takes would only ever be full.
const STORE_MAX_MIN: u64 = 2_000_000;

pub(super) fn parse_store_max(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(bytes) if bytes == 0 || bytes >= STORE_MAX_MIN => Ok(bytes),
        _ => Err(format!("give whole bytes, at least {STORE_MAX_MIN}; 0 is no limit")),
    }
}

pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "give whole bytes; 0 is no limit".into())
}

pub(super) fn parse_percent(text: &str) -> Result<Percent, String> {
    match text.strip_suffix('%').unwrap_or(text).trim_end().parse() {
        Ok(percent @ 1..=100) => Ok(Percent(percent)),
        _ => Err("give whole percents, 1% to 100%; 100% is no limit".into()),
    }
}

#[cfg(feature = "reticulum")]
pub(super) fn parse_rns(text: &str) -> Result<String, String> {
    let way = text.parse::<mosaik_reticulum::Via>().map_err(|error| error.to_string())?;
    Ok(way.to_string())
}

#[cfg(not(feature = "reticulum"))]
pub(super) fn parse_rns(_: &str) -> Result<String, String> {
    Err("this mosaik-node was built without the Reticulum bridge".into())
}

pub(super) fn parse_kinds(text: &str) -> Result<String, String> {
    let takes = "give a kind of events, as alert, or what several begin with, as alert.*";
    retention::kinds(text).map(|_| text.to_owned()).ok_or_else(|| takes.to_owned())
}

pub(super) fn parse_rate(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "give whole bytes a second; 0 is no limit".into())
}
