//! TCP load balancer before several servers: each new connection goes to the next server in turn
//! that accepts it, and stays there. Reads no protocol.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A balancer on loopback. Dropping it stops listening; open connections end with their peers.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
    /// Connections that were joined.
    open: Arc<Mutex<Vec<TcpStream>>>,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Balancer {
    /// Starts one for these servers.
    ///
    /// # Panics
    /// When there is no port to listen on.
    pub fn start(servers: &[SocketAddr]) -> Self {
        Self::with_header(servers, b"")
    }

    /// The same, which begins each connection to a server with `header`, as the PROXY protocol wants
    /// it.
    ///
    /// # Panics
    /// When there is no port to listen on.
    pub fn with_header(servers: &[SocketAddr], header: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let servers = Arc::new(Mutex::new(servers.to_vec()));
        let stop = Arc::new(AtomicBool::new(false));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let joined = Arc::clone(&open);
        let (dealt, stopped) = (Arc::clone(&servers), Arc::clone(&stop));
        let acceptor = std::thread::spawn(move || {
            for (turn, client) in listener.incoming().enumerate() {
                if stopped.load(Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                let servers = dealt.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let in_turn = servers.iter().cycle().skip(turn % servers.len());
                let server = in_turn
                    .take(servers.len())
                    .find_map(|to| TcpStream::connect(to).ok());
                // Without a server the client finds its connection closed, and connects again.
                if let Some(server) = server {
                    (&server).write_all(header).ok();
                    join(&client, &server).ok();
                    joined
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend([client, server]);
                }
            }
        });
        Self {
            address,
            servers,
            open,
            stop,
            acceptor: Some(acceptor),
        }
    }

    /// Address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all open connections, and forwards new ones to a port where nobody listens, as a network
    /// that is divided.
    pub fn cut(&self) {
        self.deal_to(&[SocketAddr::from(([127, 0, 0, 1], crate::ports::free()))]);
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Replaces the servers of new connections; open connections stay where they are.
    pub fn deal_to(&self, servers: &[SocketAddr]) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers.to_vec();
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // Wakes the acceptor.
        TcpStream::connect(self.address).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

/// Copies in both directions until both peers have closed.
fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for (from, to) in [(client, server), (server, client)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || {
            // End of file is passed on as such; a failure ends both directions.
            let how = match io::copy(&mut from, &mut to) {
                Ok(_) => Shutdown::Write,
                Err(_) => {
                    from.shutdown(Shutdown::Both).ok();
                    Shutdown::Both
                }
            };
            to.shutdown(how).ok();
        });
    }
    Ok(())
}
