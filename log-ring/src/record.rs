//! One line and its form on disk.

/// A numbered line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Grows by one from line to line.
    pub seq: u64,
    /// When it was written, nanoseconds since the Unix epoch, by the writer's clock.
    pub unix_ns: i64,
    /// [`crate::STDERR`], [`crate::NOTICE`], and the program from [`crate::PROGRAM_SHIFT`] on.
    pub flags: u8,
    /// Without its newline.
    pub text: Vec<u8>,
}

pub(crate) const HEADER: usize = 8;
const FIXED: usize = 8 + 8 + 1;

pub(crate) fn encode(seq: u64, unix_ns: i64, flags: u8, text: &[u8]) -> Vec<u8> {
    let body = FIXED + text.len();
    let mut bytes = Vec::with_capacity(HEADER + body);
    bytes.extend_from_slice(&(body as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.extend_from_slice(&unix_ns.to_le_bytes());
    bytes.push(flags);
    bytes.extend_from_slice(text);
    let crc = crc32fast::hash(&bytes[HEADER..]);
    bytes[4..HEADER].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Decodes the record at the start of `bytes`; returns it with its length on disk. `None` at the end, in a torn tail
/// and in damage: what follows cannot be trusted.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
    let body = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..HEADER)?.try_into().ok()?);
    if !(FIXED..=FIXED + crate::MAX_TEXT).contains(&body) {
        return None;
    }
    let content = bytes.get(HEADER..HEADER + body)?;
    if crc32fast::hash(content) != crc {
        return None;
    }
    let record = Record {
        seq: u64::from_le_bytes(content[..8].try_into().ok()?),
        unix_ns: i64::from_le_bytes(content[8..16].try_into().ok()?),
        flags: content[16],
        text: content[FIXED..].to_vec(),
    };
    Some((record, HEADER + body))
}

/// All good records from the start of a segment, and how many bytes they take.
pub(crate) fn decode_all(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((record, length)) = decode(&bytes[at..]) {
        records.push(record);
        at += length;
    }
    (records, at)
}
