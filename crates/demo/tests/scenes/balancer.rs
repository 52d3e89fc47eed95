//! A TCP balancer: one address, each new connection to the next server that takes it. It looks into nothing.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

/// It ends with this value; connections that are open end with their peers.
pub(crate) struct Balancer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Balancer {
    pub(crate) fn start(servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                if stopped.load(Relaxed) {
                    return;
                }
                let in_turn = servers.iter().cycle().skip(number % servers.len());
                let server = in_turn
                    .take(servers.len())
                    .find_map(|to| TcpStream::connect(to).ok());
                // Without a server the client finds its connection closed, as with a real one.
                if let (Ok(client), Some(server)) = (client, server) {
                    join(client, server);
                }
            }
        });
        Self { address, stop }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // Wakes the listener.
        TcpStream::connect(self.address).ok();
    }
}

fn join(one: TcpStream, other: TcpStream) {
    let back = (other.try_clone().unwrap(), one.try_clone().unwrap());
    for (mut from, mut to) in [(one, other), back] {
        thread::spawn(move || {
            // An end with an error is an end too, and both directions are told.
            io::copy(&mut from, &mut to).ok();
            to.shutdown(Shutdown::Write).ok();
        });
    }
}
