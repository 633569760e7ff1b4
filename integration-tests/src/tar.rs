//! Writing tar archives byte by byte, well-formed or not: no library would write
//! the hostile ones.

/// A member's header fields; what is left alone is ordinary.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// Type flag: `b'0'` file, `b'1'` hard link, `b'2'` symbolic link, `b'5'` directory ...
    pub kind: u8,
    /// Name as it stands in the header, up to 100 bytes.
    pub name: &'a [u8],
    /// Target of links.
    pub link: &'a [u8],
    /// Permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Device numbers.
    pub device: (u32, u32),
    /// The content that follows the header.
    pub content: &'a [u8],
    /// The size the header claims; by default that of the content.
    pub claimed: Option<u64>,
    /// PAX records that precede the member.
    pub pax: &'a [(&'a str, &'a [u8])],
}

impl Default for Member<'_> {
    fn default() -> Self {
        Self {
            kind: b'0',
            name: b"file",
            link: b"",
            mode: 0o644,
            owner: (0, 0),
            device: (0, 0),
            content: b"",
            claimed: None,
            pax: &[],
        }
    }
}

/// An archive of these members, with its end.
#[must_use]
pub fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        if !member.pax.is_empty() {
            let records: Vec<u8> = member
                .pax
                .iter()
                .flat_map(|(key, value)| record(key, value))
                .collect();
            push(
                &mut out,
                &Member {
                    kind: b'x',
                    name: b"PaxHeaders/x",
                    content: &records,
                    ..Member::default()
                },
            );
        }
        push(&mut out, member);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// One PAX record, "LENGTH KEY=VALUE\n", its length counting itself.
#[must_use]
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    let mut out = format!("{length} {key}=").into_bytes();
    out.extend_from_slice(value);
    out.push(b'\n');
    out
}

fn push(out: &mut Vec<u8>, member: &Member<'_>) {
    let mut header = [0_u8; 512];
    let size = member.claimed.unwrap_or(member.content.len() as u64);
    header[..member.name.len()].copy_from_slice(member.name);
    octal(&mut header[100..108], member.mode.into());
    octal(&mut header[108..116], member.owner.0.into());
    octal(&mut header[116..124], member.owner.1.into());
    octal(&mut header[124..136], size);
    octal(&mut header[136..148], 1_600_000_000);
    header[156] = member.kind;
    header[157..157 + member.link.len()].copy_from_slice(member.link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut header[329..337], member.device.0.into());
    octal(&mut header[337..345], member.device.1.into());
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut header[148..155], sum);
    out.extend_from_slice(&header);
    out.extend_from_slice(member.content);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn octal(field: &mut [u8], value: u64) {
    let digits = format!("{value:0width$o}", width = field.len() - 1);
    field[..digits.len()].copy_from_slice(digits.as_bytes());
}
