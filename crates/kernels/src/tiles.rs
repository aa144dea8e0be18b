//! The tile registers of AMX.
//!
//! A thread that uses them says first which shapes they have, and frees them afterwards, which also keeps context switches cheap.
//! The instructions themselves are assembly, since compilers do not yet offer them in stable Rust; each user writes its own loop.

#![expect(unsafe_code, reason = "tile instructions exist as assembly only")]

use std::arch::asm;

/// The shapes of tile registers, as `LDTILECFG` reads them.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Tile registers in use by this thread. Dropping it frees them.
#[derive(Debug)]
pub(crate) struct Registers(());

impl Registers {
    /// Gives each register a shape: rows, at most 16, and bytes of a row, at most 64.
    ///
    /// # Safety
    /// AMX is there and permitted, and no other such value lives on this thread.
    pub(crate) unsafe fn new(shapes: [(usize, usize); 8]) -> Self {
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (register, (rows, bytes)) in shapes.into_iter().enumerate() {
            assert!(rows <= 16 && bytes <= 64, "a register of {rows} rows of {bytes} bytes");
            (config.row_bytes[register], config.rows[register]) = (bytes as u16, rows as u8);
        }
        // SAFETY: the shapes are within the limits of palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        Self(())
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: a value exists only where AMX does.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
