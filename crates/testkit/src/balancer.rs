//! A TCP balancer as it stands before several servers: each new connection goes to the next server in turn, and stays
//! there. It looks at no byte.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A balancer on loopback. Dropping it ends the listening; connections end with their ends.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Balancer {
    /// Listens before these servers.
    ///
    /// # Panics
    /// When there is no port to listen on.
    pub fn start(servers: &[SocketAddr]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let servers = Arc::new(Mutex::new(servers.to_vec()));
        let stop = Arc::new(AtomicBool::new(false));
        let (dealt, stopped) = (Arc::clone(&servers), Arc::clone(&stop));
        let acceptor = std::thread::spawn(move || {
            for (turn, client) in listener.incoming().enumerate() {
                if stopped.load(Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                let server = {
                    let servers = dealt.lock().unwrap_or_else(PoisonError::into_inner);
                    servers[turn % servers.len()]
                };
                // A server that is down: the client sees a closed connection and comes again.
                if let Ok(server) = TcpStream::connect(server) {
                    join(&client, &server).ok();
                }
            }
        });
        Self {
            address,
            servers,
            stop,
            acceptor: Some(acceptor),
        }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on new connections go to these servers; those that are open stay where they are.
    pub fn deal_to(&self, servers: &[SocketAddr]) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers.to_vec();
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // Wakes the accept.
        TcpStream::connect(self.address).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

/// Copies both ways until both ends have closed.
fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for (from, to) in [(client, server), (server, client)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || {
            // An end is passed on as an end; a failure ends both ways.
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
