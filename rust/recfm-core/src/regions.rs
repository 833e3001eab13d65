//! Parts of files, read where they lie and checked against the checksums that a manifest keeps.

use std::fs::File;
use std::io;
use std::path::Path;

use rayon::prelude::*;

use crate::hash::checksum;
use crate::{Error, Result, pool};

/// Consecutive bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Which of the files.
    pub file: usize,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes.
    pub bytes: usize,
    /// XXH3 of the bytes.
    pub checksum: u64,
}

/// Reads the regions into `out`, end to end.
pub fn read_regions<P: AsRef<Path> + Sync>(
    paths: &[P],
    regions: &[Region],
    out: &mut [u8],
) -> Result<()> {
    let total = regions.iter().map(|region| region.bytes).sum::<usize>();
    if total != out.len() {
        return Err(Error::Length {
            left: "regions",
            left_len: total,
            right: "out",
            right_len: out.len(),
        });
    }
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        files.push(File::open(path).map_err(|error| unreadable(path.as_ref(), &error))?);
    }
    let mut rest = out;
    let mut places = Vec::with_capacity(regions.len());
    for region in regions {
        let (place, behind) = rest.split_at_mut(region.bytes);
        places.push(place);
        rest = behind;
    }
    pool::install(|| {
        let work = regions.par_iter().zip(places).with_max_len(1);
        work.try_for_each(|(region, place)| {
            let Some((file, path)) = files.get(region.file).zip(paths.get(region.file)) else {
                return Err(Error::Offsets(format!("there is no file {}", region.file)));
            };
            read_at(file, place, region.offset)
                .map_err(|error| unreadable(path.as_ref(), &error))?;
            if checksum(place) == region.checksum {
                return Ok(());
            }
            Err(Error::Damaged {
                file: path.as_ref().display().to_string(),
                start: region.offset as usize,
                stop: region.offset as usize + region.bytes,
            })
        })
    })?
}

#[cfg(unix)]
fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        let more =
            std::os::windows::fs::FileExt::seek_read(file, &mut out[done..], offset + done as u64)?;
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        done += more;
    }
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let reason = if error.kind() == io::ErrorKind::UnexpectedEof {
        "it is shorter than its manifest says".to_owned()
    } else {
        error.to_string()
    };
    Error::Unreadable {
        file: path.display().to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_come_in_the_order_asked_for_and_damage_is_named() {
        let path = std::env::temp_dir().join(format!("recfm-regions-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let region = |offset: u64, text: &[u8]| Region {
            file: 0,
            offset,
            bytes: text.len(),
            checksum: checksum(text),
        };
        let read = |regions: &[Region], bytes: usize| {
            let mut out = vec![0; bytes];
            read_regions(&[&path], regions, &mut out).map(|()| out)
        };
        let good = [region(7, b"78"), region(0, b"01"), region(5, b"")];
        assert_eq!(read(&good, 4), Ok(b"7801".to_vec()));
        assert!(matches!(read(&good, 5), Err(Error::Length { .. })));
        let damaged = read(&[region(1, b"13")], 2);
        assert!(matches!(
            damaged,
            Err(Error::Damaged {
                start: 1,
                stop: 3,
                ..
            })
        ));
        let short = read(&[region(8, b"890")], 3);
        assert!(
            matches!(short, Err(Error::Unreadable { reason, .. }) if reason.contains("shorter"))
        );
        let absent = read(
            &[Region {
                file: 1,
                ..region(0, b"0")
            }],
            1,
        );
        assert!(matches!(absent, Err(Error::Offsets(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&good, 4), Err(Error::Unreadable { .. })));
    }
}
