//! One line and its form on disk.

/// A numbered line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Grows by one from line to line; 0 for what a reader says itself ([`crate::GAP`]).
    pub seq: u64,
    /// When it was written, nanoseconds since the Unix epoch, by the writer's clock.
    pub unix_ns: i64,
    /// [`crate::STDERR`], [`crate::NOTICE`], [`crate::GAP`], and the program from [`crate::PROGRAM_SHIFT`] on.
    pub flags: u8,
    /// Without its newline.
    pub text: Vec<u8>,
}

impl Record {
    /// Says at this time that `count` lines are missing.
    pub(crate) fn gap(count: u64, unix_ns: i64) -> Self {
        let (lines, are, them) = if count == 1 { ("line", "is", "it") } else { ("lines", "are", "them") };
        let text = format!("{count} {lines} {are} missing here: the log could not hold {them}");
        Self { seq: 0, unix_ns, flags: crate::GAP | crate::NOTICE | crate::STDERR, text: text.into_bytes() }
    }
}

/// A line of a segment, borrowed from the segment's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentLine<'a> {
    pub(crate) seq: u64,
    pub(crate) unix_ns: i64,
    flags: u8,
    text: &'a [u8],
}

impl SegmentLine<'_> {
    pub(crate) fn record(&self) -> Record {
        Record { seq: self.seq, unix_ns: self.unix_ns, flags: self.flags, text: self.text.to_vec() }
    }
}

pub(crate) const HEADER: usize = 8;
const FIXED: usize = 8 + 8 + 1;

/// Appends the record to `bytes`; a text above [`crate::MAX_TEXT`] is cut.
pub(crate) fn encode(bytes: &mut Vec<u8>, seq: u64, unix_ns: i64, flags: u8, text: &[u8]) {
    let text = &text[..text.len().min(crate::MAX_TEXT)];
    let (start, body) = (bytes.len(), FIXED + text.len());
    bytes.reserve(HEADER + body);
    bytes.extend_from_slice(&(body as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.extend_from_slice(&unix_ns.to_le_bytes());
    bytes.push(flags);
    bytes.extend_from_slice(text);
    let crc = crc32fast::hash(&bytes[start + HEADER..]);
    bytes[start + 4..start + HEADER].copy_from_slice(&crc.to_le_bytes());
}

/// Decodes the record at the start of `bytes`; returns it with its length on disk. `None` at the end, in a torn tail
/// and in damage: what follows cannot be trusted.
fn decode(bytes: &[u8]) -> Option<(SegmentLine<'_>, usize)> {
    let body = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..HEADER)?.try_into().ok()?);
    if !(FIXED..=FIXED + crate::MAX_TEXT).contains(&body) {
        return None;
    }
    let content = bytes.get(HEADER..HEADER + body)?;
    if crc32fast::hash(content) != crc {
        return None;
    }
    let found = SegmentLine {
        seq: u64::from_le_bytes(content[..8].try_into().ok()?),
        unix_ns: i64::from_le_bytes(content[8..16].try_into().ok()?),
        flags: content[16],
        text: &content[FIXED..],
    };
    Some((found, HEADER + body))
}

/// All good records from the start of a segment, and how many bytes they take.
pub(crate) fn decode_all(bytes: &[u8]) -> (Vec<SegmentLine<'_>>, usize) {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((record, length)) = decode(&bytes[at..]) {
        records.push(record);
        at += length;
    }
    (records, at)
}
