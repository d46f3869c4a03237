//! A Zstandard stream as gzip, while it passes through.
//!
//! Droplets are kept as `tar.zst`; clients save what they download as `.tgz`, and `tar xzf` must take it. Memory is bounded
//! whatever the stream holds: some kilobytes of Zstandard can say hundreds of megabytes, so it is decoded as it is taken.

use std::io;

use async_compression::Level;
use async_compression::tokio::bufread::{GzipEncoder, ZstdDecoder};
use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use tokio::io::BufReader;
use tokio_util::io::{ReaderStream, StreamReader};

/// What is decoded, and what is packed, at a time: some milliseconds of a thread that others wait for.
const PIECE: usize = 64 << 10;

/// The gzip stream of a Zstandard one. An error ends it: what the client has then is cut off, and its transfer fails.
pub fn from_zstd<S, E>(source: S) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut decoder = ZstdDecoder::new(StreamReader::new(source.map_err(io::Error::other)));
    decoder.multiple_members(true);
    // The way to the client is slower than this; more effort would be felt.
    let encoder = GzipEncoder::with_quality(BufReader::with_capacity(PIECE, decoder), Level::Fastest);
    ReaderStream::with_capacity(encoder, PIECE)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::{Read as _, Write as _};

    use super::*;

    fn pieces(bytes: &[u8], size: usize) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + Unpin + use<> {
        let pieces: Vec<_> = bytes.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        futures::stream::iter(pieces)
    }

    async fn passed(bytes: &[u8], size: usize) -> io::Result<(Vec<u8>, usize)> {
        let (mut whole, mut largest) = (Vec::new(), 0);
        let stream = from_zstd(pieces(bytes, size));
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
    async fn compressed_data_is_decoded_however_it_is_chunked() {
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
    async fn a_decompression_bomb_does_not_fill_the_memory() {
        // One megabyte that gzip's window is too small for, a hundred times.
        let content = noise(1 << 20).repeat(100);
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("encoder");
        encoder.window_log(22).expect("window");
        encoder.write_all(&content).expect("packed");
        let packed = encoder.finish().expect("packed");
        assert!(packed.len() < 2 << 20, "{}", packed.len());
        let (out, largest) = passed(&packed, packed.len()).await.expect("passed");
        assert!(out == content && largest <= PIECE, "{largest}");
    }

    #[tokio::test]
    async fn truncated_or_other_data_than_zstandard_is_an_error() {
        let packed = zstd::encode_all(&noise(100_000)[..], 3).expect("packed");
        for bad in [&packed[..packed.len() - 1], &packed[..10], b"no frame at all"] {
            assert!(passed(bad, 4096).await.is_err());
        }
    }
}
