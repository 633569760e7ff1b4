//! Reads members one after another. Strict: what readers could understand in two ways is an error,
//! because what one checks another would unpack (security.md, S7 to S10; CVE-2025-62518).

use std::io;

use super::fields::{Dialect, Header};
use super::pax::{self, Extended};
use super::sparse::{self, Sparse};
use super::{Attributes, BLOCK, Device, Entry, FileData, Kind, Source, TarError, Time};

/// Largest extended header or long name, in bytes. A path of 2,000 names of 255 bytes has half a MiB.
const EXTENSION_BYTES_MAX: u64 = 1024 * 1024;
/// Longest target of a symbolic link, in bytes; PATH_MAX without its NUL.
const SYMLINK_BYTES_MAX: usize = 4095;
/// Largest device numbers: Linux packs 12 bits of major and 20 of minor.
const DEVICE_MAX: (i128, i128) = (0xfff, 0xf_ffff);
/// Largest user or group id; 2^32-1 means "unchanged" to chown(2).
const ID_MAX: u64 = 0xffff_fffe;

/// An archive being read.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    /// Bytes taken from the source so far.
    position: u64,
    /// Where the current member's header starts.
    member: u64,
    /// What the last member's data still holds.
    pending: Pending,
    ended: bool,
}

/// Data that lies between the last header and the next.
#[derive(Debug, Default)]
struct Pending {
    /// Bytes of data.
    data: u64,
    /// Bytes up to the next block.
    padding: u64,
}

/// The extension members before a member.
#[derive(Debug, Default)]
struct Extensions {
    pax: Option<Extended>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<S: Source> Reader<S> {
    /// Reads what `source` holds from where it stands.
    pub fn new(source: S) -> Reader<S> {
        Reader {
            source,
            position: 0,
            member: 0,
            pending: Pending::default(),
            ended: false,
        }
    }

    /// The source, wherever it stands.
    pub fn into_source(self) -> S {
        self.source
    }

    /// The next member; `None` after the last. Whether a file's padding holds anything but zeros is known only when its
    /// data has passed: `dirty_padding` is called then, for the member returned before.
    pub fn next(&mut self, mut dirty_padding: impl FnMut()) -> Result<Option<Entry>, TarError> {
        if self.pass_data()? {
            dirty_padding();
        }
        let mut extensions = Extensions::default();
        while !self.ended {
            self.member = self.position;
            let Some(block) = self.header_block()? else {
                break;
            };
            let header = Header(&block);
            if !header.checksum_is_right() {
                return Err(self.bad(None, "bad header checksum"));
            }
            match (header.dialect(), header.typeflag()) {
                (None, _) => return Err(self.bad(None, "an unknown version of the format")),
                // Some readers take these for extensions, others for files.
                (Some(Dialect::V7), b'x' | b'g' | b'L' | b'K') => {
                    return Err(self.bad(None, "an extended header in a format that has none"));
                }
                _ => {}
            }
            let size = self.tape_size(&header)?;
            match header.typeflag() {
                b'x' => set_once(&mut extensions.pax, pax::parse(&self.extension(size)?)),
                b'L' => set_once(
                    &mut extensions.long_name,
                    Ok(without_nul(self.extension(size)?)),
                ),
                b'K' => set_once(
                    &mut extensions.long_link,
                    Ok(without_nul(self.extension(size)?)),
                ),
                b'g' => match pax::is_only_comment(&self.extension(size)?) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err("a global PAX header that changes members".to_owned()),
                    Err(why) => Err(why),
                },
                _ => return self.entry(&header, size, extensions).map(Some),
            }
            .map_err(|why| self.bad(None, &why))?;
        }
        if extensions.pax.is_some()
            || extensions.long_name.is_some()
            || extensions.long_link.is_some()
        {
            return Err(self.bad(None, "an extended header without a member"));
        }
        Ok(None)
    }

    /// Passes the last member's data; whether its padding held anything but zeros.
    fn pass_data(&mut self) -> Result<bool, TarError> {
        let Pending { data, padding } = std::mem::take(&mut self.pending);
        let cut = |err: io::Error, bad: TarError| {
            if err.kind() == io::ErrorKind::UnexpectedEof {
                bad
            } else {
                TarError::Read(err)
            }
        };
        if data > 0 {
            self.source.skip(data).map_err(|err| {
                cut(
                    err,
                    self.bad(None, "the archive ends in the middle of this member"),
                )
            })?;
            self.position += data;
        }
        let mut rest = [0; BLOCK as usize];
        let rest = &mut rest[..usize::try_from(padding).unwrap_or(0)];
        let got = self.read(rest)?;
        // A last member whose padding is cut off is whole, but not a whole block.
        Ok(got < rest.len() || rest[..got].iter().any(|byte| *byte != 0))
    }

    /// The next header block; `None` at the end mark, or where the bytes end between members.
    fn header_block(&mut self) -> Result<Option<[u8; 512]>, TarError> {
        let mut block = [0; 512];
        match self.read(&mut block)? {
            0 => {
                self.ended = true;
                return Ok(None);
            }
            512 => {}
            _ => return Err(self.bad(None, "the archive ends in the middle of a header")),
        }
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        let mut second = [0; 512];
        let got = self.read(&mut second)?;
        if second[..got].iter().any(|byte| *byte != 0) {
            return Err(self.bad(None, "a lone zero block between members"));
        }
        self.ended = true;
        Ok(None)
    }

    fn tape_size(&self, header: &Header<'_>) -> Result<u64, TarError> {
        // i64: what file systems and other readers can count.
        let size = header
            .size()
            .and_then(|size| i64::try_from(size).ok())
            .and_then(|size| u64::try_from(size).ok());
        size.ok_or_else(|| self.bad(None, "bad size"))
    }

    /// Reads the data of an extension member.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_BYTES_MAX {
            return Err(self.bad(
                None,
                &format!("an extended header of {size} bytes, more than {EXTENSION_BYTES_MAX}"),
            ));
        }
        let padded = size.next_multiple_of(BLOCK);
        let mut data = vec![0; usize::try_from(padded).unwrap_or(0)];
        if self.read(&mut data)? < data.len() {
            return Err(self.bad(None, "the archive ends in the middle of an extended header"));
        }
        data.truncate(usize::try_from(size).unwrap_or(0));
        Ok(data)
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        header_size: u64,
        extensions: Extensions,
    ) -> Result<Entry, TarError> {
        let Extensions {
            pax,
            long_name,
            long_link,
        } = extensions;
        let extended = pax.unwrap_or_default();
        let both = |pax: bool, gnu: bool| pax && gnu;
        if both(extended.path.is_some(), long_name.is_some())
            || both(extended.linkpath.is_some(), long_link.is_some())
        {
            return Err(self.bad(None, "a PAX path and a GNU long name for one member"));
        }
        let sparse_name = extended.sparse.name.clone();
        let path = sparse_name
            .or(extended.path.clone())
            .or(long_name)
            .unwrap_or_else(|| header.name());
        let link = extended
            .linkpath
            .clone()
            .or(long_link)
            .unwrap_or_else(|| header.linkname());
        self.plain_entry(header, header_size, extended, path.clone(), link)
            .map_err(|err| match err {
                TarError::Member {
                    offset,
                    path: None,
                    why,
                } => TarError::Member {
                    offset,
                    path: Some(path),
                    why,
                },
                other => other,
            })
    }

    fn plain_entry(
        &mut self,
        header: &Header<'_>,
        header_size: u64,
        extended: Extended,
        path: Vec<u8>,
        link: Vec<u8>,
    ) -> Result<Entry, TarError> {
        let attributes = attributes(header, &extended).map_err(|why| self.bad(None, &why))?;
        if path.is_empty() {
            return Err(self.bad(None, "a member without a name"));
        }
        let size = extended.size.unwrap_or(header_size);
        if i64::try_from(size).is_err() {
            return Err(self.bad(None, "bad size"));
        }
        let mut typeflag = header.typeflag();
        // V7 had no type for directories, and BSD kept the habit.
        if matches!(typeflag, 0 | b'0' | b'7') && path.ends_with(b"/") {
            typeflag = b'5';
        }
        // Readers differ on whether such members have data, so a size must not matter. All agree that a hard link has none.
        if matches!(typeflag, b'2'..=b'6') && size > 0 {
            return Err(self.bad(None, "a member without content has a size"));
        }
        let sparse = extended.sparse.is_used();
        if sparse && !matches!(typeflag, 0 | b'0' | b'7') {
            return Err(self.bad(None, "a sparse map on a member that is no file"));
        }
        let kind = match typeflag {
            0 | b'0' | b'7' => Kind::File(if sparse {
                self.pax_sparse(&extended, size)?
            } else {
                self.file(size)
            }),
            b'S' if header.dialect() == Some(Dialect::Gnu) => {
                Kind::File(self.old_gnu_sparse(header, size)?)
            }
            b'1' if link.is_empty() => return Err(self.bad(None, "a hard link to nothing")),
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(self.symlink_target(link)?),
            b'3' | b'4' => Kind::Device(self.device(header, typeflag == b'4')?),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(self.bad(None, &format!("unknown type {:?}", char::from(other)))),
        };
        Ok(Entry {
            path,
            attributes,
            kind,
        })
    }

    /// A plain file whose `size` bytes of data follow.
    fn file(&mut self, size: u64) -> FileData {
        self.pending = Pending {
            data: size,
            padding: size.next_multiple_of(BLOCK) - size,
        };
        FileData {
            size,
            offset: self.position,
            odd: None,
        }
    }

    fn pax_sparse(&mut self, extended: &Extended, size: u64) -> Result<FileData, TarError> {
        let keys = &extended.sparse;
        let (sparse, map_size) = match (keys.major, keys.minor) {
            (Some(1), Some(0)) => {
                let mut left = size;
                let (extents, map_size) = sparse::pax_1_0(|| {
                    left = left
                        .checked_sub(BLOCK)
                        .ok_or("the sparse map is longer than its member")?;
                    let mut block = [0; 512];
                    match self.read(&mut block) {
                        Ok(512) => Ok(block),
                        Ok(_) => Err("the archive ends in the middle of a sparse map".to_owned()),
                        Err(err) => Err(err.to_string()),
                    }
                })
                .map_err(|why| self.bad(None, &why))?;
                let real_size = keys
                    .real_size
                    .ok_or_else(|| self.bad(None, "a sparse member without its real size"))?;
                (Sparse { real_size, extents }, map_size)
            }
            (None | Some(0), None | Some(0 | 1)) => {
                let sparse = sparse::from_keys(keys, size).map_err(|why| self.bad(None, &why))?;
                (
                    sparse.ok_or_else(|| self.bad(None, "a sparse member without a map"))?,
                    0,
                )
            }
            _ => return Err(self.bad(None, "an unknown version of sparse members")),
        };
        self.sparse_file(sparse, size - map_size)
    }

    fn old_gnu_sparse(&mut self, header: &Header<'_>, size: u64) -> Result<FileData, TarError> {
        let mut extents = Vec::new();
        sparse::old_gnu_pieces(header.0, 386, 4, &mut extents)
            .map_err(|why| self.bad(None, &why))?;
        let real_size =
            super::fields::number(&header.0[483..495]).and_then(|size| u64::try_from(size).ok());
        let real_size = real_size.ok_or_else(|| self.bad(None, "bad real size"))?;
        let mut more = header.0[482] != 0;
        while more {
            let mut block = [0; 512];
            if self.read(&mut block)? < block.len() {
                return Err(self.bad(None, "the archive ends in the middle of a sparse map"));
            }
            let before = extents.len();
            sparse::old_gnu_pieces(&block, 0, 21, &mut extents)
                .map_err(|why| self.bad(None, &why))?;
            more = block[504] != 0;
            if more && extents.len() == before {
                return Err(self.bad(None, "an empty block of a sparse map"));
            }
        }
        self.sparse_file(Sparse { real_size, extents }, size)
    }

    /// The data that follows is `size` bytes on tape.
    fn sparse_file(&mut self, sparse: Sparse, size: u64) -> Result<FileData, TarError> {
        let file = self.file(size);
        sparse
            .check(file.offset, size)
            .map_err(|why| self.bad(None, &why))
    }

    fn symlink_target(&self, target: Vec<u8>) -> Result<Vec<u8>, TarError> {
        match target.len() {
            0 => Err(self.bad(None, "a symbolic link to nothing")),
            1..=SYMLINK_BYTES_MAX => Ok(target),
            length => Err(self.bad(
                None,
                &format!(
                    "a symbolic link's target of {length} bytes, more than {SYMLINK_BYTES_MAX}"
                ),
            )),
        }
    }

    fn device(&self, header: &Header<'_>, block: bool) -> Result<Device, TarError> {
        let numbers = header.device().filter(|(major, minor)| {
            (0..=DEVICE_MAX.0).contains(major) && (0..=DEVICE_MAX.1).contains(minor)
        });
        let (major, minor) = numbers.ok_or_else(|| self.bad(None, "bad device number"))?;
        let narrow = |number: i128| u32::try_from(number).unwrap_or_default();
        Ok(Device {
            block,
            major: narrow(major),
            minor: narrow(minor),
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let n = self.source.read(buffer)?;
        self.position += n as u64;
        Ok(n)
    }

    fn bad(&self, path: Option<Vec<u8>>, why: &str) -> TarError {
        TarError::Member {
            offset: self.member,
            path,
            why: why.to_owned(),
        }
    }
}

fn attributes(header: &Header<'_>, extended: &Extended) -> Result<Attributes, String> {
    let id = |name: &str, pax: Option<u64>, field: Option<i128>| {
        let value = pax
            .map(i128::from)
            .or(field)
            .and_then(|value| u64::try_from(value).ok());
        let value = value
            .filter(|value| *value <= ID_MAX)
            .and_then(|value| u32::try_from(value).ok());
        value.ok_or_else(|| format!("bad {name}"))
    };
    let seconds = header
        .mtime()
        .and_then(|seconds| i64::try_from(seconds).ok());
    let mtime = extended
        .mtime
        .or(seconds.map(|seconds| Time {
            seconds,
            nanoseconds: 0,
        }))
        .ok_or("bad mtime")?;
    let mode = header
        .mode()
        .and_then(|mode| u16::try_from(mode & 0o7777).ok())
        .ok_or("bad mode")?;
    Ok(Attributes {
        mode,
        uid: id("uid", extended.uid, header.uid())?,
        gid: id("gid", extended.gid, header.gid())?,
        mtime,
        xattrs: extended.xattrs.clone(),
    })
}

/// A second extension of one kind could be meant to replace or to add.
fn set_once<T>(slot: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    match slot.replace(value?) {
        None => Ok(()),
        Some(_) => Err("two extended headers of one kind for one member".into()),
    }
}

/// GNU long names end with a NUL.
fn without_nul(mut name: Vec<u8>) -> Vec<u8> {
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    name.truncate(end);
    name
}
