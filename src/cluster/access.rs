//! Access to peers: the client side of TLS and of the Forward handshake.
//!
//! A peer has the configuration of this instance, so what this instance asks of its clients is what
//! a peer asks of it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{Buf, BytesMut};
use forward_protocol::handshake::client::{AfterHelo, AfterPong, AwaitHelo, Credentials, hex_salt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::config::{Config, Network, Secret, Tls, User};
use crate::input::forward::TlsError;

/// How this instance proves itself to its peers.
pub(super) struct Access {
    tls: Option<PeerTls>,
    handshake: Option<Handshake>,
    /// Connections begin with a header of the PROXY protocol.
    pub(super) proxy_protocol: bool,
}

struct PeerTls {
    files: Tls,
    authority: PathBuf,
    /// The name in the certificates of all peers.
    server_name: Option<String>,
    current: RwLock<TlsConnector>,
}

struct Handshake {
    hostname: String,
    shared_key: Option<Secret>,
    networks: Vec<Network>,
    users: Vec<User>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// Reads certificates and takes keys from the configuration. `instance` makes the host name
    /// differ from that of a peer on the same host.
    pub(super) fn from_config(config: &Config, instance: u64) -> Result<Self, TlsError> {
        let forward = &config.forward;
        let authenticates =
            forward.shared_key.is_some() || !forward.users.is_empty() || !forward.networks.is_empty();
        let handshake = authenticates.then(|| Handshake {
            hostname: format!("{instance:016x}.peer"),
            shared_key: forward.shared_key.clone(),
            networks: forward.networks.clone(),
            users: forward.users.clone(),
        });
        Ok(Self {
            tls: peer_tls(config)?,
            handshake,
            proxy_protocol: forward.proxy_protocol,
        })
    }

    /// Reads the certificates again. After an error the old ones stay in use.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        if let Some(tls) = &self.tls {
            let fresh = connector(&tls.files, &tls.authority)?;
            *tls.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        Ok(())
    }

    pub(super) fn uses_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Performs the TLS handshake. `name` is the name by which the peer was found, if there is one.
    pub(super) async fn connect_tls(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        name: Option<&str>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let Some(tls) = &self.tls else {
            return Err(io::Error::other("TLS is off"));
        };
        let server = match tls.server_name.as_deref().or(name) {
            Some(name) => ServerName::try_from(name.to_owned()).map_err(io::Error::other)?,
            None => ServerName::IpAddress(address.ip().into()),
        };
        let connector = tls.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        connector.connect(server, stream).await
    }

    /// Performs the Forward handshake, if the peers ask for one. `local` is this end's address.
    pub(super) async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        local: IpAddr,
    ) -> Result<(), String> {
        let Some(handshake) = &self.handshake else {
            return Ok(());
        };
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        let network = handshake
            .networks
            .iter()
            .find(|network| network.cidr.contains(local));
        let key = network.and_then(|network| network.shared_key.as_ref());
        let key = key.or(handshake.shared_key.as_ref());
        let may_log_in = |user: &&User| {
            network.is_none_or(|network| network.users.is_empty() || network.users.contains(&user.name))
        };
        let user = handshake.users.iter().find(may_log_in);
        let credentials = Credentials {
            hostname: handshake.hostname.clone(),
            shared_key: key.map_or_else(Vec::new, |key| key.expose().as_bytes().to_vec()),
            user: user.map(|user| (user.name.clone(), user.password.expose().to_string())),
        };
        let mut buffer = BytesMut::new();
        let mut waiting = AwaitHelo::new(credentials, &hex_salt(random));
        let mut pong = loop {
            match waiting.receive(&buffer).map_err(|error| error.to_string())? {
                AfterHelo::More(again) => waiting = again,
                AfterHelo::Ping { send, consumed, next } => {
                    buffer.advance(consumed);
                    stream.write_all(&send).await.map_err(|error| error.to_string())?;
                    stream.flush().await.map_err(|error| error.to_string())?;
                    break next;
                }
            }
            read(stream, &mut buffer).await?;
        };
        loop {
            match pong.receive(&buffer).map_err(|error| error.to_string())? {
                AfterPong::More(again) => pong = again,
                AfterPong::Established { .. } => return Ok(()),
            }
            read(stream, &mut buffer).await?;
        }
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut BytesMut) -> Result<(), String> {
    match stream.read_buf(buffer).await {
        Ok(0) => Err("it closed the connection during the handshake".into()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The client side of the TLS that the Forward port speaks, if it does.
fn peer_tls(config: &Config) -> Result<Option<PeerTls>, TlsError> {
    let (Some(files), Some(ca)) = (&config.forward.tls, &config.cluster.tls_ca) else {
        return Ok(None);
    };
    Ok(Some(PeerTls {
        files: files.clone(),
        authority: ca.clone(),
        server_name: config.cluster.tls_server_name.clone(),
        current: RwLock::new(connector(files, ca)?),
    }))
}

fn connector(files: &Tls, ca: &Path) -> Result<TlsConnector, TlsError> {
    let failed = |path: &Path, why: String| TlsError {
        path: path.to_owned(),
        why,
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, TlsError> {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| failed(path, format!("no certificate can be read: {error}")))
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca)? {
        roots
            .add(authority)
            .map_err(|error| failed(ca, error.to_string()))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(ca, error.to_string()))?
        .with_root_certificates(roots);
    let client = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(_) => {
            let key = PrivateKeyDer::from_pem_file(&files.key)
                .map_err(|error| failed(&files.key, format!("no private key can be read: {error}")))?;
            builder
                .with_client_auth_cert(certificates(&files.cert)?, key)
                .map_err(|error| failed(&files.key, error.to_string()))?
        }
    };
    Ok(TlsConnector::from(Arc::new(client)))
}
