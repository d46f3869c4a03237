//! A Zstandard stream as gzip, while it passes through.
//!
//! Droplets are kept as `tar.zst`; clients save what they download as `.tgz`, and `tar xzf` must take it. Memory is bounded
//! whatever the stream holds: some kilobytes of Zstandard can say hundreds of megabytes, so a step ends when it has made
//! enough. A step runs on a thread for such work and holds it only while it computes: a client that reads slowly
//! keeps no thread.

use std::io::{self, Write as _};

use bytes::{Buf as _, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt as _};
use zstd::stream::raw::{Decoder, Operation as _};

/// A step ends when it has made this much. Lower costs more changes of thread, higher more memory of each download.
const STEP: usize = 256 << 10;
/// What is decoded at a time.
const PIECE: usize = 128 << 10;

/// The state of one stream.
struct Gzip {
    decoder: Decoder<'static>,
    encoder: Option<GzEncoder<Vec<u8>>>,
    piece: Vec<u8>,
    /// Read, and not decoded yet.
    input: Bytes,
    /// The decoder may hold more than it has given out.
    more: bool,
    /// A frame has begun and has not ended.
    within: bool,
}

impl Gzip {
    fn new() -> io::Result<Self> {
        Ok(Self {
            decoder: Decoder::new()?,
            // The way to the client is slower than this; more effort would be felt.
            encoder: Some(GzEncoder::new(Vec::with_capacity(STEP), Compression::fast())),
            piece: vec![0; PIECE],
            input: Bytes::new(),
            more: false,
            within: false,
        })
    }

    /// Goes on until there is enough output or no input.
    fn step(&mut self) -> io::Result<Vec<u8>> {
        let ended = || io::Error::other("the stream has ended");
        let encoder = self.encoder.as_mut().ok_or_else(ended)?;
        while (self.more || !self.input.is_empty()) && encoder.get_ref().len() < STEP {
            let status = self.decoder.run_on_buffers(&self.input, &mut self.piece)?;
            if status.bytes_read == 0 && status.bytes_written == 0 && !self.input.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the decoder makes no progress"));
            }
            self.input.advance(status.bytes_read);
            encoder.write_all(&self.piece[..status.bytes_written])?;
            self.more = status.bytes_written == self.piece.len();
            self.within = status.remaining != 0;
            if !self.within {
                // Another frame may follow.
                self.decoder.reinit()?;
                self.more = false;
            }
        }
        Ok(std::mem::take(encoder.get_mut()))
    }

    /// Nothing follows.
    fn end(&mut self) -> io::Result<Vec<u8>> {
        if self.within {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the Zstandard stream is cut off"));
        }
        self.encoder.take().map_or_else(|| Ok(Vec::new()), GzEncoder::finish)
    }

    fn idle(&self) -> bool {
        self.input.is_empty() && !self.more
    }
}

/// What is known between two pieces of the answer.
struct Passing<S> {
    source: S,
    gzip: Gzip,
    over: bool,
}

/// The gzip stream of a Zstandard one. An error ends it: what the client has then is cut off, and its transfer fails.
///
/// # Errors
/// When the decoder cannot be made.
pub fn from_zstd<S, E>(source: S) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    let passing = Passing { source, gzip: Gzip::new()?, over: false };
    Ok(futures::stream::try_unfold(passing, next))
}

async fn next<S, E>(mut passing: Passing<S>) -> io::Result<Option<(Bytes, Passing<S>)>>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    loop {
        if passing.over {
            return Ok(None);
        }
        if passing.gzip.idle() {
            match passing.source.next().await {
                Some(read) => passing.gzip.input = read.map_err(io::Error::other)?,
                None => passing.over = true,
            }
        }
        let (mut gzip, over) = (passing.gzip, passing.over);
        let work = tokio::task::spawn_blocking(move || {
            let made = if over { gzip.end() } else { gzip.step() };
            (gzip, made)
        });
        let (gzip, made) = work.await.map_err(io::Error::other)?;
        passing.gzip = gzip;
        let made = made?;
        if !made.is_empty() {
            return Ok(Some((made.into(), passing)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Read as _;

    use futures::TryStreamExt as _;

    use super::*;

    fn pieces(bytes: &[u8], size: usize) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + Unpin + use<> {
        let pieces: Vec<_> = bytes.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        futures::stream::iter(pieces)
    }

    async fn passed(bytes: &[u8], size: usize) -> io::Result<(Vec<u8>, usize)> {
        let (mut whole, mut largest) = (Vec::new(), 0);
        let stream = from_zstd(pieces(bytes, size))?;
        futures::pin_mut!(stream);
        while let Some(piece) = stream.try_next().await? {
            largest = largest.max(piece.len());
            whole.extend_from_slice(&piece);
        }
        let mut content = Vec::new();
        flate2::read::GzDecoder::new(&whole[..]).read_to_end(&mut content)?;
        Ok((content, largest))
    }

    /// Without end and without a pattern: gzip gains nothing on it.
    fn noise(length: usize) -> Vec<u8> {
        let mut seed = 1_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[tokio::test]
    async fn what_was_packed_comes_out_however_it_is_cut() {
        let content = [noise(300_000), vec![7; 3_000_000], b"end".to_vec()].concat();
        let one = zstd::encode_all(&content[..], 3).expect("packed");
        let two = [
            zstd::encode_all(&content[..1000], 1).expect("packed"),
            zstd::encode_all(&content[1000..], 9).expect("packed"),
        ]
        .concat();
        for packed in [&one, &two] {
            for size in [1 << 20, 8 << 10, 997] {
                assert_eq!(passed(packed, size).await.expect("passed").0, content);
            }
        }
        assert_eq!(passed(&zstd::encode_all(&b""[..], 3).expect("packed"), 5).await.expect("passed").0, b"");
    }

    #[tokio::test]
    async fn little_that_says_much_does_not_fill_the_memory() {
        // One megabyte that gzip's window is too small for, a hundred times.
        let content = noise(1 << 20).repeat(100);
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("encoder");
        encoder.window_log(22).expect("window");
        encoder.write_all(&content).expect("packed");
        let packed = encoder.finish().expect("packed");
        assert!(packed.len() < 2 << 20, "{}", packed.len());
        let (out, largest) = passed(&packed, packed.len()).await.expect("passed");
        assert!(out == content && largest < STEP + 2 * PIECE, "{largest}");
    }

    #[tokio::test]
    async fn what_is_cut_off_or_no_zstandard_ends_in_an_error() {
        let packed = zstd::encode_all(&noise(100_000)[..], 3).expect("packed");
        for bad in [&packed[..packed.len() - 1], &packed[..10], b"no frame at all"] {
            assert!(passed(bad, 4096).await.is_err());
        }
    }
}
