//! The program's memory. Few kilobytes are asked for, by one thread: blocks of powers of two, taken from pieces of the
//! kernel's memory and kept for the next who wants one of the size, are enough. The C library's way is 10 kB of code.
//!
//! Memory runs short for a moment where a limit is reached and the kernel makes room by ending somebody: the init waits
//! for that, rather than to end with all that it looks after.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::time::Duration;

/// Between two tries, and how many there are: two seconds.
const PAUSE: Duration = Duration::from_millis(20);
const TRIES: u32 = 100;
/// The smallest block, in bytes, and how many sizes there are: up to 32 KiB. Larger ones are pieces of their own.
const LEAST: usize = 16;
const SIZES: usize = 12;
/// What the kernel is asked for at once. Its pages take memory when they are first written to.
const PIECE: usize = 128 << 10;

/// A block that nobody uses: where the next one of its size is.
struct Free(*mut Free);

struct State {
    free: [*mut Free; SIZES],
    /// The rest of the last piece.
    next: usize,
    end: usize,
}

struct Memory(UnsafeCell<State>);

// SAFETY: the program has one thread. A child of the spawn's has the same memory, and allocates nothing.
unsafe impl Sync for Memory {}

#[global_allocator]
static MEMORY: Memory = Memory(UnsafeCell::new(State { free: [std::ptr::null_mut(); SIZES], next: 0, end: 0 }));

/// A block's size, and which of the sizes that is (or none of them).
fn size(layout: Layout) -> (usize, usize) {
    let size = layout.size().max(layout.align()).max(LEAST).next_power_of_two();
    (size, (size / LEAST).trailing_zeros() as usize)
}

fn map(size: usize) -> *mut u8 {
    for _ in 0..TRIES {
        // SAFETY: asks for new memory somewhere.
        let got = unsafe {
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), size, access, kind, -1, 0)
        };
        if got != libc::MAP_FAILED {
            return got.cast();
        }
        std::thread::sleep(PAUSE);
    }
    std::ptr::null_mut()
}

// SAFETY: a block is as large as its size and begins at a multiple of that (above a page: of a page, and nothing here
// wants more), which is at least the layout's alignment; it is in one list of free blocks or with one user.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, index) = size(layout);
        if index >= SIZES {
            return map(size);
        }
        // SAFETY: one thread, and nothing below calls back.
        let state = unsafe { &mut *self.0.get() };
        let free = state.free[index];
        if !free.is_null() {
            // SAFETY: a free block of this size holds where the next one is.
            state.free[index] = unsafe { (*free).0 };
            return free.cast();
        }
        let mut start = state.next.next_multiple_of(size.min(4096));
        if start + size > state.end {
            // What is left of the last piece is less than a block of this size.
            let piece = map(PIECE);
            if piece.is_null() {
                return piece;
            }
            start = piece as usize;
            state.end = start + PIECE;
        }
        state.next = start + size;
        start as *mut u8
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, length: usize) -> *mut u8 {
        // SAFETY: the caller's promise: the length is one that a layout may have.
        let new = unsafe { Layout::from_size_align_unchecked(length, layout.align()) };
        if size(new) == size(layout) {
            return memory;
        }
        // SAFETY: two blocks of these sizes, the old one the caller's and then nobody's.
        unsafe {
            let to = self.alloc(new);
            if !to.is_null() {
                std::ptr::copy_nonoverlapping(memory, to, layout.size().min(length));
                self.dealloc(memory, layout);
            }
            to
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let (size, index) = size(layout);
        if index >= SIZES {
            // SAFETY: `alloc` mapped it, with this size.
            unsafe { libc::munmap(memory.cast(), size) };
            return;
        }
        // SAFETY: one thread; the block is nobody's any more, and large enough and aligned for the entry.
        unsafe {
            let state = &mut *self.0.get();
            let free = memory.cast::<Free>();
            free.write(Free(state.free[index]));
            state.free[index] = free;
        }
    }
}

/// std asks by C's names for its own lists of what ends with a thread: answered here, they don't bring the C library's
/// memory into the program beside this. With glibc, which has more such names, both stay.
#[cfg(target_env = "musl")]
mod c {
    use super::{GlobalAlloc, Layout, MEMORY};

    /// What stands before a block: its size, which `free` is not told.
    const HEAD: usize = 16;

    #[unsafe(no_mangle)]
    extern "C" fn malloc(length: usize) -> *mut u8 {
        let Some(layout) = length.checked_add(HEAD).and_then(|size| Layout::from_size_align(size, HEAD).ok()) else {
            return std::ptr::null_mut();
        };
        // SAFETY: not of size zero; the head is within the block.
        unsafe {
            let block = MEMORY.alloc(layout);
            if block.is_null() {
                return block;
            }
            block.cast::<usize>().write(layout.size());
            block.add(HEAD)
        }
    }

    /// Nothing in the program wants more than `malloc` promises.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn posix_memalign(place: *mut *mut u8, align: usize, length: usize) -> libc::c_int {
        let block = if align > HEAD { std::ptr::null_mut() } else { malloc(length) };
        if block.is_null() {
            return libc::ENOMEM;
        }
        // SAFETY: the caller's place for the answer.
        unsafe { place.write(block) };
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn free(memory: *mut u8) {
        if !memory.is_null() {
            // SAFETY: from `malloc`, which wrote the head.
            unsafe {
                let block = memory.sub(HEAD);
                MEMORY.dealloc(block, Layout::from_size_align_unchecked(block.cast::<usize>().read(), HEAD));
            }
        }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(memory: *mut u8, length: usize) -> *mut u8 {
        let new = malloc(length);
        if !memory.is_null() && !new.is_null() {
            // SAFETY: from `malloc`, which wrote the head; both are as long as is copied.
            unsafe {
                let old = memory.sub(HEAD).cast::<usize>().read() - HEAD;
                std::ptr::copy_nonoverlapping(memory, new, old.min(length));
                free(memory);
            }
        }
        new
    }
}
