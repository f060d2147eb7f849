//! How much spare room the table of connections has, measured by its allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::mem::size_of;

use campanile::{Limits, echo, sys::Connection};

use super::sim::fake::World;
use super::sim::kernel::SimStream;
use super::{serving, turns};

/// Only the table of connections allocates blocks of this size or more.
const BIG: usize = 32 << 10;

thread_local! {
    static TOLD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Counts the big blocks that each thread allocates, and keeps the size of the biggest.
struct Counting;

fn note(size: usize) {
    if size > BIG {
        let _ = TOLD.try_with(|told| {
            let (count, biggest) = told.get();
            told.set((count + 1, biggest.max(size)));
        });
    }
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn the_table_of_connections_grows_by_an_eighth() {
    const COUNT: usize = 1_100;
    let world = World::new();
    let mut reactor = serving(&world, Limits::default().read_buffer(1), echo());
    (0..COUNT).for_each(|_| drop(world.connect(0)));
    TOLD.set((0, 0));
    for _ in 0..COUNT {
        turns(&mut reactor, 1);
        world.take_calls();
    }
    assert_eq!(reactor.connections(), COUNT);
    let (growths, biggest) = TOLD.get();
    let most = (COUNT + COUNT / 8 + 8) * (size_of::<Connection<SimStream>>() + 8);
    assert!(biggest <= most, "{biggest} bytes, where {most} are an eighth more than enough");
    assert!((4..=20).contains(&growths), "{growths} times");
}
