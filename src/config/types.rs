//! Types of configuration values, valid by construction.
//!
//! Each can be parsed from text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::secret::Secret;
use windrow_trace::{Phrase, Severity};

/// An address of the Forward input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// TCP, and UDP for heartbeats. Port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("no path after \"unix:\"".into()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => parse_address(text).map(Self::Tcp),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where another instance listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAddress {
    /// One address.
    Socket(SocketAddr),
    /// All addresses of a name, which is resolved again and again.
    Dns {
        /// The name.
        name: String,
        /// The port at each address.
        port: u16,
    },
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("dns:") else {
            let address =
                parse_address(text).map_err(|why| format!("{why}; write a name as dns:NAME:PORT"))?;
            return match address {
                address if address.ip().is_unspecified() => Err("it names no peer".into()),
                address if address.port() == 0 => Err("port 0 names no peer".into()),
                address => Ok(Self::Socket(address)),
            };
        };
        let (name, port) = rest.rsplit_once(':').ok_or("no port after the name")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || name.len() > 253 || !name.chars().all(is_name) {
            return Err(format!("{name:?} is not a host name"));
        }
        match port.parse() {
            Ok(port @ 1..) => Ok(Self::Dns {
                name: name.into(),
                port,
            }),
            _ => Err(format!("{port:?} is not a port (1 to 65535)")),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "{address}"),
            Self::Dns { name, port } => write!(f, "dns:{name}:{port}"),
        }
    }
}

/// `IP:PORT`, `[IP]:PORT`, `localhost:PORT`, or `:PORT` for every IPv4 address.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| "no port".to_owned())?;
    let ip = match host {
        "" | "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .map_err(|_| format!("{host:?} is not an IP address (names are not resolved)"))?,
    };
    let port = port
        .parse()
        .map_err(|_| format!("{port:?} is not a port (0 to 65535)"))?;
    Ok(SocketAddr::new(ip, port))
}

/// Certificate and key of a TLS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the certificate and its chain.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// PEM file with the authorities that client certificates must come from; `None`: clients need
    /// none.
    pub client_ca: Option<PathBuf>,
}

/// A user of the Forward handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name, not empty.
    pub name: String,
    /// Password.
    pub password: Secret,
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => Err("no colon between name and password".into()),
            Some(("", _)) => Err("the name is empty".into()),
            Some((name, password)) => Ok(Self {
                name: name.into(),
                password: Secret::new(password),
            }),
        }
    }
}

/// Rules for clients of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The addresses.
    pub cidr: Cidr,
    /// Their shared key; `None`: `forward.shared_key`.
    pub shared_key: Option<Secret>,
    /// Names of the users that may log in from there; empty: all.
    pub users: Vec<String>,
}

/// A block of addresses, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    ip: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether the address is in the block. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.ip, address.to_canonical()) {
            (IpAddr::V4(ip), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                u32::from(ip) & mask == u32::from(other) & mask
            }
            (IpAddr::V6(ip), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                u128::from(ip) & mask == u128::from(other) & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl Cidr {
    /// An IPv4-mapped block, as the IPv4 block that it stands for: addresses of clients are compared
    /// as IPv4.
    fn mapped(ip: Ipv6Addr, v4: Ipv4Addr, bits: Option<&str>) -> Result<Self, String> {
        let bits = bits.map_or(Ok(128), |bits| prefix_bits(bits, 128))?;
        let Some(bits) = bits.checked_sub(96) else {
            return Err(format!(
                "{bits} bits of the IPv4-mapped {ip} are more than all IPv4 addresses; write 0.0.0.0/0, or at least 96 bits"
            ));
        };
        format!("{v4}/{bits}").parse()
    }
}

fn prefix_bits(text: &str, most: u8) -> Result<u8, String> {
    let bits: u8 = text
        .parse()
        .map_err(|_| format!("{text:?} is not a number of bits"))?;
    if bits > most {
        return Err(format!("{bits} bits, but the address has {most}"));
    }
    Ok(bits)
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ip, bits) = text
            .split_once('/')
            .map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| format!("{ip:?} is not an IP address"))?;
        if let (IpAddr::V6(mapped), IpAddr::V4(v4)) = (ip, ip.to_canonical()) {
            return Self::mapped(mapped, v4, bits);
        }
        let most: u8 = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => prefix_bits(bits, most)?,
        };
        // 0.0.0.0/0 and ::/0 match all addresses of their own family only.
        let (v4, v6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        let ip = if bits == 0 {
            if ip.is_ipv4() { v4.into() } else { v6.into() }
        } else {
            ip
        };
        Ok(Self { ip, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// A condition on a record: of `trace.complete`, of a route.
#[derive(Debug, Clone)]
pub struct Condition {
    /// Name of the field; `None`: the text of the record, whichever of the text fields holds it.
    pub field: Option<Box<str>>,
    /// The test of its value.
    pub test: Predicate,
}

/// A test of the text of a field.
#[derive(Debug, Clone)]
pub enum Predicate {
    /// It contains this.
    Contains(Box<Phrase>),
    /// It equals this.
    Equals(Box<str>),
    /// It equals one of these.
    OneOf(Vec<String>),
    /// It matches one of these patterns, of which the literal parts between the `*` are here.
    Glob(Vec<Vec<Box<str>>>),
    /// It is a level that is no better than this.
    AtLeast(Severity),
    /// There is such a field, or there is none.
    Exists(bool),
    /// The regular expression matches somewhere.
    Matches(regex::bytes::Regex),
}

impl Predicate {
    /// Whether a string that is exactly `text` passes. A number is given as it is written in JSON.
    #[must_use]
    #[inline(always)]
    pub fn passes(&self, text: &[u8]) -> bool {
        match self {
            Self::Contains(phrase) => phrase.is_in(text),
            Self::Equals(exactly) => exactly.as_bytes() == text,
            Self::Matches(regex) => matches(regex, text),
            rare => rare.passes_rare(text),
        }
    }
}

impl Predicate {
    /// [`Self::passes`] of tests that `trace.complete` rarely has.
    #[inline(never)]
    fn passes_rare(&self, text: &[u8]) -> bool {
        match self {
            Self::OneOf(texts) => texts.iter().any(|exactly| exactly.as_bytes() == text),
            Self::Glob(patterns) => patterns.iter().any(|parts| glob_matches(parts, text)),
            Self::AtLeast(least) => Severity::from_text(text).is_some_and(|level| level >= *least),
            Self::Exists(exists) => *exists,
            Self::Contains(_) | Self::Equals(_) | Self::Matches(_) => false,
        }
    }
}

/// Whether a text has these parts, with anything between them.
fn glob_matches(parts: &[Box<str>], text: &[u8]) -> bool {
    let [first, middle @ .., last] = parts else {
        return parts.first().is_some_and(|only| only.as_bytes() == text);
    };
    let Some(mut rest) = text
        .strip_prefix(first.as_bytes())
        .and_then(|rest| rest.strip_suffix(last.as_bytes()))
    else {
        return false;
    };
    for part in middle {
        match memchr::memmem::find(rest, part.as_bytes()) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// Not inlined: saving its many registers would slow down the other tests.
#[inline(never)]
fn matches(regex: &regex::bytes::Regex, text: &[u8]) -> bool {
    regex.is_match(text)
}

/// Whether a record whose text is a JSON object becomes that object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ParseJson {
    /// If the object has a trace id.
    #[default]
    Auto,
    /// Each object.
    Always,
    /// No object.
    Never,
}

/// Format of the server's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
