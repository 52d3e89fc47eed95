//! The order of a load's records: lines of several open traces interleaved, traces dealt over
//! connections.

/// Which records a load has, and which of them are open at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Interleaving {
    /// Traces in all, numbered from 0.
    pub traces: u64,
    /// Lines of each trace, numbered from 0.
    pub lines: u32,
    /// Traces open at the same time: the first line of all of them, then the second line of all of
    /// them, and so on.
    pub open: u64,
    /// Connections; trace `n` goes over connection `n % connections`.
    pub connections: u64,
    /// Line `m` of trace `n` goes over connection `(n + m) % connections` instead.
    pub spread: bool,
}

impl Interleaving {
    /// The records of one connection, in order.
    pub fn of_connection(self, connection: u64) -> ConnectionOrder {
        let mut order = ConnectionOrder {
            load: self,
            connection,
            group: 0..self.open.max(1).min(self.traces),
            line: 0,
            next: 0,
        };
        order.next = order.first();
        order
    }

    /// The place of a record in the order over all connections.
    pub fn sequence(self, trace: u64, line: u32) -> u64 {
        let open = self.open.max(1);
        let first = trace / open * open;
        let size = open.min(self.traces - first);
        first * u64::from(self.lines) + u64::from(line) * size + trace % open
    }
}

/// The records of one connection as `(trace, line)`.
#[derive(Clone, Debug)]
pub struct ConnectionOrder {
    load: Interleaving,
    connection: u64,
    /// The traces that are open.
    group: std::ops::Range<u64>,
    line: u32,
    /// The next trace of the group.
    next: u64,
}

impl ConnectionOrder {
    /// The first trace of the group whose line goes over this connection.
    fn first(&self) -> u64 {
        let connections = self.load.connections.max(1);
        let shift = if self.load.spread { u64::from(self.line) } else { 0 };
        let owner = (self.group.start + shift) % connections;
        self.group.start + (self.connection + connections - owner) % connections
    }
}

impl Iterator for ConnectionOrder {
    type Item = (u64, u32);

    fn next(&mut self) -> Option<Self::Item> {
        while self.next >= self.group.end {
            if self.line + 1 < self.load.lines {
                self.line += 1;
            } else {
                let from = self.group.end;
                if from >= self.load.traces {
                    return None;
                }
                self.group = from..self.load.traces.min(from + self.load.open.max(1));
                self.line = 0;
            }
            self.next = self.first();
        }
        let place = (self.next, self.line);
        self.next += self.load.connections.max(1);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_goes_once_over_its_connection_in_order() {
        for spread in [false, true] {
            for (traces, lines, open, connections) in
                [(20, 3, 4, 2), (23, 5, 7, 3), (5, 1, 9, 4), (1, 2, 1, 3)]
            {
                let load = Interleaving {
                    traces,
                    lines,
                    open,
                    connections,
                    spread,
                };
                let mut all = Vec::new();
                for connection in 0..connections {
                    let own: Vec<_> = load.of_connection(connection).collect();
                    let sequences: Vec<_> = own
                        .iter()
                        .map(|&(trace, line)| load.sequence(trace, line))
                        .collect();
                    assert!(sequences.is_sorted(), "{load:?}: {own:?}");
                    for (trace, line) in own {
                        let owner = trace + if spread { u64::from(line) } else { 0 };
                        assert_eq!(owner % connections, connection);
                        all.push(load.sequence(trace, line));
                    }
                }
                all.sort_unstable();
                assert!(all.into_iter().eq(0..traces * u64::from(lines)), "{load:?}");
            }
        }
    }
}
