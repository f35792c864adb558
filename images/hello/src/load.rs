//! Load on purpose: memory that is really touched, and CPU.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What was taken and is held until [`release`].
static HELD: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Takes `mib` more MiB, page by page, and answers how many are held now.
pub fn take(mib: usize) -> usize {
    let mut held = HELD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for _ in 0..mib {
        let mut block = vec![0u8; 1 << 20];
        block.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        held.push(std::hint::black_box(block));
    }
    held.len()
}

/// Gives all of it back.
pub fn release() {
    HELD.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
}

/// Keeps `threads` cores busy for a while.
pub fn burn(threads: usize, time: Duration) {
    let until = Instant::now() + time;
    let burners: Vec<_> = (0..threads)
        .map(|_| {
            std::thread::spawn(move || {
                let mut x = 1u64;
                while Instant::now() < until {
                    for _ in 0..10_000 {
                        x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                    }
                }
            })
        })
        .collect();
    for burner in burners {
        // A burner does not panic; if it did, it has stopped burning all the same.
        let _ = burner.join();
    }
}
