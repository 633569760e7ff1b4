//! A file as a block device. `loop(4)`.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::sys;

/// How often another program may be faster with the device that was free.
const RACES_MAX: usize = 100;

/// A loop device that goes away with its last user, of which this is one.
#[derive(Debug)]
pub(super) struct LoopDevice {
    path: String,
    _device: File,
}

impl LoopDevice {
    /// Its node.
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

/// Gives `file` a loop device.
///
/// # Errors
/// What the kernel says.
pub(super) fn attach(file: &Path, read_only: bool, direct_io: bool) -> io::Result<LoopDevice> {
    let open = |path: &Path| File::options().read(true).write(!read_only).open(path);
    let backing = open(file)?;
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    for _ in 0..RACES_MAX {
        let path = format!("/dev/loop{}", sys::free_loop_device(&control)?);
        let device = open(Path::new(&path))?;
        match sys::attach_loop_device(&device, &backing, read_only, direct_io) {
            Err(err) if err.kind() == io::ErrorKind::ResourceBusy => {}
            Err(err) => return Err(err),
            Ok(()) => {
                return Ok(LoopDevice {
                    path,
                    _device: device,
                });
            }
        }
    }
    Err(io::Error::from(io::ErrorKind::ResourceBusy))
}
