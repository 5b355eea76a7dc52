//! How long the pool of idle connections takes to give one and take it back, by how many there
//! are: `idle nanoseconds` in each line.

use std::hint::black_box;
use std::time::Instant;

#[allow(dead_code)]
#[path = "../../../src/balancer"]
mod balancer {
    pub mod keepalive;
}

use balancer::keepalive::Pool;

const IDENTITIES: usize = 5_000;
const TIMES: usize = 1_000_000;

/// What a connection is found by, about as long as in earnest. A request writes it anew each time,
/// so it is not read from a list here either: that would measure the list.
struct Identity([u8; 104]);

impl Identity {
    fn new() -> Self {
        let mut bytes = [0; 104];
        bytes[64..].copy_from_slice(b"10.00.00.00:0443 host-00.example.com    ");
        Identity(bytes)
    }

    fn of(&mut self, n: usize) -> &[u8] {
        self.0[64..68].copy_from_slice(&(n as u32).to_be_bytes());
        self.0[96..100].copy_from_slice(&(n as u32).to_le_bytes());
        black_box(&self.0)
    }
}

fn nanoseconds(idle: usize) -> f64 {
    let identities = IDENTITIES.min(idle);
    let mut identity = Identity::new();
    let mut pool = Pool::new(idle);
    for n in 0..idle {
        pool.put(identity.of(n % identities), None, |_| n).into_iter().for_each(drop);
    }

    // No order that a cache could foresee.
    let mut random = 88172645463325252u64;
    let start = Instant::now();
    for _ in 0..TIMES {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let identity = identity.of(random as usize % identities);
        let value = pool.take(identity).expect("each identity has an idle connection");
        let evicted = pool.put(identity, None, |_| value);
        assert_eq!(black_box(evicted).into_iter().count(), 0);
    }
    start.elapsed().as_nanos() as f64 / TIMES as f64
}

fn main() {
    // The first run finds a cold processor.
    nanoseconds(10);
    for idle in [10, 1_000, 10_000] {
        println!("{idle} {:.1}", nanoseconds(idle));
    }
}
