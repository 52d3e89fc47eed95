//! PROXY protocol, versions 1 and 2: the header in which a load balancer names the client.
//!
//! Owns the parser: the header must be read to its last byte and no further, because TLS or a
//! message follows, and nothing of it but the client's address is needed. Specification: HAProxy,
//! `proxy-protocol.txt`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Begins a header of version 1 (section 2.1).
const SIGNATURE_1: &[u8; 6] = b"PROXY ";
/// Begins a header of version 2 (section 2.2).
const SIGNATURE_2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes that tell whether a connection begins with a header.
pub(super) const MAX_SIGNATURE_BYTES: usize = SIGNATURE_2.len();
/// Longest header of version 1 (section 2.1).
const MAX_LINE_BYTES: usize = 107;
/// Bytes of a header of version 2 before the addresses.
const FIXED_BYTES_2: usize = 16;

/// Why there is no client's address.
#[derive(Debug, thiserror::Error)]
pub(in crate::input) enum ProxyHeaderError {
    /// The connection does not begin with a header.
    #[error("the connection begins with {0:02x?}, not with a header of the PROXY protocol")]
    Missing(Vec<u8>),
    /// The header is malformed.
    #[error("malformed header of the PROXY protocol: {0}")]
    Malformed(&'static str),
    /// The connection was closed before its first byte.
    #[error("closed before the header of the PROXY protocol")]
    Closed,
    /// The socket failed, or was closed inside the header.
    #[error("no header of the PROXY protocol: {0}")]
    Io(#[from] io::Error),
}

/// Whether a connection that begins with `first` begins with a header.
pub(super) fn begins(first: &[u8]) -> bool {
    first.starts_with(SIGNATURE_1) || first.starts_with(SIGNATURE_2)
}

/// Reads the header. `None`: the balancer speaks for itself, or does not know the client's address.
pub(super) async fn read_header<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<Option<IpAddr>, ProxyHeaderError> {
    // Every header is longer.
    let mut first = [0; MAX_SIGNATURE_BYTES];
    let mut read = 0;
    while let Some(rest) = first.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).await? {
            0 if read == 0 => return Err(ProxyHeaderError::Closed),
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            n => read += n,
        }
        let seen = first.get(..read).unwrap_or_default();
        if !SIGNATURE_1.starts_with(seen) && !SIGNATURE_2.starts_with(seen) && !seen.starts_with(SIGNATURE_1)
        {
            return Err(ProxyHeaderError::Missing(seen.to_vec()));
        }
    }
    if first.starts_with(SIGNATURE_1) {
        version_1(stream, first.to_vec()).await
    } else {
        version_2(stream).await
    }
}

/// Reads the rest of a line `PROXY TCP4 192.0.2.1 198.51.100.1 56324 24224\r\n`.
async fn version_1<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut line: Vec<u8>,
) -> Result<Option<IpAddr>, ProxyHeaderError> {
    while !line.ends_with(b"\r\n") {
        if line.len() >= MAX_LINE_BYTES {
            return Err(ProxyHeaderError::Malformed("the line does not end"));
        }
        line.push(stream.read_u8().await?);
    }
    let line = std::str::from_utf8(&line).map_err(|_| ProxyHeaderError::Malformed("it is no text"))?;
    let mut words = line.trim_end().split(' ').skip(1);
    let (family, source) = (words.next(), words.next());
    let malformed = ProxyHeaderError::Malformed("the source is no address");
    let source = source.ok_or(ProxyHeaderError::Malformed("it has no source"));
    match family {
        Some("TCP4") => {
            let source: Ipv4Addr = source?.parse().map_err(|_| malformed)?;
            Ok(Some(source.into()))
        }
        Some("TCP6") => {
            let source: Ipv6Addr = source?.parse().map_err(|_| malformed)?;
            Ok(Some(source.into()))
        }
        Some("UNKNOWN") => Ok(None),
        _ => Err(ProxyHeaderError::Malformed(
            "it is neither TCP4 nor TCP6 nor UNKNOWN",
        )),
    }
}

/// Reads what follows the signature of version 2.
async fn version_2<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<IpAddr>, ProxyHeaderError> {
    let mut fixed = [0; FIXED_BYTES_2 - SIGNATURE_2.len()];
    stream.read_exact(&mut fixed).await?;
    let [version_command, family, high, low] = fixed;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([high, low]))];
    stream.read_exact(&mut rest).await?;
    if version_command >> 4 != 2 {
        return Err(ProxyHeaderError::Malformed("its version is not 2"));
    }
    let short = ProxyHeaderError::Malformed("its addresses are cut short");
    match (version_command & 0xf, family >> 4) {
        // LOCAL, and PROXY with addresses of other families.
        (0, _) | (1, 0 | 3) => Ok(None),
        (1, 1) => {
            let source: [u8; 4] = *rest.first_chunk().ok_or(short)?;
            Ok(Some(source.into()))
        }
        (1, 2) => {
            let source: [u8; 16] = *rest.first_chunk().ok_or(short)?;
            Ok(Some(source.into()))
        }
        _ => Err(ProxyHeaderError::Malformed("unknown command or family")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a header in pieces of `size`; gives the address and what follows the header.
    async fn read(bytes: &[u8], size: usize) -> (Result<Option<IpAddr>, ProxyHeaderError>, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(size);
        let bytes = bytes.to_vec();
        let sending = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut client, &bytes)
                .await
                .ok();
        });
        let address = read_header(&mut server).await;
        let mut rest = Vec::new();
        if address.is_ok() {
            server.read_to_end(&mut rest).await.unwrap();
        }
        drop(server);
        sending.await.unwrap();
        (address, rest)
    }

    fn version_2_header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE_2[..], &[0x20 | command, family], &length, rest].concat()
    }

    #[tokio::test]
    async fn headers_of_both_versions() {
        let addresses_4 = [192, 0, 2, 1, 198, 51, 100, 1, 0, 5, 0, 6];
        let mut addresses_6 = [0; 36];
        addresses_6[15] = 1;
        // Additional values follow the addresses.
        let more = [&addresses_4[..], &[4, 0, 1, 0]].concat();
        for (header, expected) in [
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 24224\r\n".to_vec(),
                Some("192.0.2.1"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 56324 24224\r\n".to_vec(),
                Some("2001:db8::1"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f... whatever\r\n".to_vec(), None),
            (version_2_header(1, 0x11, &addresses_4), Some("192.0.2.1")),
            (version_2_header(1, 0x11, &more), Some("192.0.2.1")),
            (version_2_header(1, 0x21, &addresses_6), Some("::1")),
            (version_2_header(1, 0x31, &[0; 216]), None),
            (version_2_header(1, 0, b""), None),
            (version_2_header(0, 0, b""), None),
            (version_2_header(0, 0x11, &addresses_4), None),
        ] {
            for size in [1, 7, 1000] {
                let (address, rest) = read(&[&header[..], b"next"].concat(), size).await;
                let expected = expected.map(|address| address.parse().unwrap());
                assert_eq!(address.unwrap(), expected, "{header:x?}");
                assert_eq!(rest, b"next");
            }
            assert!(begins(&header) && !begins(&header[..5]));
        }
    }

    #[tokio::test]
    async fn what_is_no_header() {
        for bytes in [
            &b"\x93\xa3app"[..],
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP4 nowhere 198.51.100.1 1 2\r\n",
            b"PROXY TCP4\r\n      ",
            b"PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x02ab",
            b"\r\n\r\n\0\r\nQUIT\n\x2f\x11\0\0",
            &[b"PROXY TCP4 ", &[b'1'; 200][..]].concat(),
            b"PROXY ",
        ] {
            assert!(read(bytes, 1000).await.0.is_err(), "{bytes:x?}");
        }
        assert!(matches!(read(b"", 10).await.0, Err(ProxyHeaderError::Closed)));
    }
}
