//! The log as plain files in the layout of c2sp.org/tlog-tiles, so that tools of others can verify it: `checkpoint`,
//! `tile/<level>/<n>[.p/<width>]`, `tile/entries/<n>[.p/<width>]`.

use std::{fs, path::Path};

use crate::{Checkpoint, Error, Ledger, Result, tree::WIDTH};

impl Ledger {
    /// Writes everything under the newest checkpoint into a directory. Full tiles that are there already are left alone, so a second export
    /// adds only what is new.
    ///
    /// # Errors
    /// [`Error::NotFound`] if nothing was signed yet.
    pub async fn export(&self, directory: &Path) -> Result<Checkpoint> {
        let checkpoint = self.checkpoint().await?.ok_or_else(|| Error::NotFound("nothing was signed yet".into()))?;
        for level in 0..8 {
            let hashes = checkpoint.size >> (8 * level);
            for (n, width) in tiles(hashes) {
                let path = directory.join(format!("tile/{level}/{}", place(n, width)));
                if width < WIDTH || !path.exists() {
                    write(&path, &self.tile(level, n, width_of(width)).await?)?;
                }
            }
        }
        for (n, width) in tiles(checkpoint.size) {
            let path = directory.join(format!("tile/entries/{}", place(n, width)));
            if width < WIDTH || !path.exists() {
                write(&path, &self.bundle(n, width_of(width)).await?)?;
            }
        }
        // Last: whoever sees it finds all that it covers.
        write(&directory.join("checkpoint"), checkpoint.note.as_bytes())?;
        Ok(checkpoint)
    }
}

fn width_of(width: u64) -> u16 {
    u16::try_from(width).unwrap_or(u16::MAX)
}

/// The tiles that `hashes` hashes fill, with their widths.
fn tiles(hashes: u64) -> impl Iterator<Item = (u64, u64)> {
    let rest = hashes % WIDTH;
    (0..hashes / WIDTH).map(|n| (n, WIDTH)).chain((rest > 0).then_some((hashes / WIDTH, rest)))
}

/// `x001/x234/067`, with `.p/<width>` behind it for a tile that is not full.
fn place(n: u64, width: u64) -> String {
    let mut path = format!("{:03}", n % 1000);
    let mut rest = n / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    if width < WIDTH {
        path += &format!(".p/{width}");
    }
    path
}

/// Under another name first: nobody finds half a file.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::file(path, &error);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let draft = path.with_extension("draft");
    fs::write(&draft, bytes).map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let check = |n, width, path: &str| assert_eq!(place(n, width), path);
        check(0, 256, "000");
        check(67, 256, "067");
        check(1_234_067, 256, "x001/x234/067");
        check(1_234_067, 8, "x001/x234/067.p/8");
        assert_eq!(tiles(600).collect::<Vec<_>>(), [(0, 256), (1, 256), (2, 88)]);
        assert_eq!(tiles(512).count(), 2);
        assert_eq!(tiles(0).count(), 0);
    }
}
