//! `windrow health`: health check of a running server over its admin port, for containers without
//! curl.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Health;
use crate::config::Config;
use crate::exit;

/// Bytes of the response that are read; real ones are shorter.
const MAX_RESPONSE_BYTES: u64 = 64 * 1024;

/// Writes the response of the server, and returns the exit code: 0 for status 200, 1 otherwise.
pub fn health(options: &Health, config: &Config, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let path = if options.ready { "/ready" } else { "/health" };
    let Some(address) = config.admin.listen.map(reachable) else {
        let _ = writeln!(err, "there is no admin port: admin.listen is \"none\"");
        return exit::FAILURE;
    };
    // A closed pipe cannot be reported anywhere; the exit code remains.
    match ask(address, path, options.timeout) {
        Ok((status, body)) => {
            let _ = writeln!(out, "{}", body.trim_end());
            if status == 200 { exit::OK } else { exit::FAILURE }
        }
        Err(error) => {
            let _ = writeln!(err, "http://{address}{path}: {error}");
            exit::FAILURE
        }
    }
}

/// Replaces an unspecified address by loopback.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

fn ask(address: SocketAddr, path: &str, timeout: Duration) -> io::Result<(u16, String)> {
    let until = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&address, timeout.max(Duration::from_millis(1)))?;
    stream.set_write_timeout(Some(remaining(until)?))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut response = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        stream.set_read_timeout(Some(remaining(until)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => response.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
        if response.len() as u64 > MAX_RESPONSE_BYTES {
            break;
        }
    }
    let response = String::from_utf8_lossy(&response);
    let bad = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the response is not HTTP; is this Windrow's admin port?",
        )
    };
    let (head, body) = response.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .ok_or_else(bad)?;
    Ok((status.parse().map_err(|_| bad())?, body.to_owned()))
}

fn remaining(until: Instant) -> io::Result<Duration> {
    let remaining = until.saturating_duration_since(Instant::now());
    if remaining.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(remaining)
    }
}
