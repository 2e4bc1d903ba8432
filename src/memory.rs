//! Memory runs short for a moment where a limit is reached and the kernel makes room by ending somebody: the init waits
//! for that, rather than to end with all that it looks after.

use std::alloc::{GlobalAlloc, Layout, System};
use std::time::Duration;

/// Between two tries, and how many there are: two seconds.
const PAUSE: Duration = Duration::from_millis(20);
const TRIES: u32 = 100;

/// The C library's memory, asked for again where there is none at once.
struct Patient;

#[global_allocator]
static MEMORY: Patient = Patient;

fn ask(mut memory: impl FnMut() -> *mut u8) -> *mut u8 {
    for _ in 0..TRIES {
        let got = memory();
        if !got.is_null() {
            return got;
        }
        std::thread::sleep(PAUSE);
    }
    std::ptr::null_mut()
}

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Patient {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        ask(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise; where it fails the old memory is as it was.
        ask(|| unsafe { System.realloc(memory, layout, size) })
    }
}
