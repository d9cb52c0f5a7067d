//! Frames of SPDY/3.1, read and written: pure, one direction of one connection each.
//!
//! The protocol: "SPDY Protocol - Draft 3.1" (chromium.org). Flow control is not used, as no client of Kubernetes uses it
//! (`moby/spdystream`): who is slow holds back the connection.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Names and values, in order; names are in lower case.
pub(in crate::http::streams) type Headers = Vec<(String, String)>;

/// The value of a header.
pub(in crate::http::streams) fn value<'a>(headers: &'a Headers, name: &str) -> &'a str {
    headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// One frame. Data of a long frame comes in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http::streams) enum Frame {
    /// Opens a stream.
    SynStream { id: u32, headers: Headers, fin: bool },
    /// Accepts a stream.
    SynReply { id: u32, headers: Headers, fin: bool },
    /// Ends a stream, both ways, at once.
    Reset { id: u32, status: u32 },
    /// Settings; ids with their flags in the highest byte, and values.
    Settings(Vec<(u32, u32)>),
    /// To be sent back as it is.
    Ping(u32),
    /// The last thing said on a connection.
    GoAway { last: u32, status: u32 },
    /// More headers.
    Headers { id: u32, headers: Headers, fin: bool },
    /// How much more a stream may send.
    WindowUpdate { id: u32, delta: u32 },
    /// Data, and whether it is the last.
    Data { id: u32, data: Bytes, fin: bool },
}

/// The status of a stream that is not taken.
pub(in crate::http::streams) const REFUSED_STREAM: u32 = 3;

/// Bytes of a control frame; a connection that sends a longer one is closed. Headers of Kubernetes take a hundred.
const CONTROL_BYTES: usize = 64 * 1024;

/// Bytes that headers of one frame may be when they are unpacked; a connection with more is closed.
const HEADER_BYTES: usize = 64 * 1024;

/// Bytes of data written in one frame.
pub(in crate::http::streams) const DATA_BYTES: usize = 32 * 1024;

const FIN: u8 = 1;
const VERSION: u16 = 3;

/// What cannot be a frame: the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http::streams) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Words that headers are packed with, each preceded by its length, and a text.
const WORDS: &str = "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|\
    age|allow|authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|\
    content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|\
    if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|\
    proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|\
    user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|\
    keep-alive|origin";
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary that headers are packed with (section 2.6.10.1).
fn dictionary() -> Vec<u8> {
    let mut all = Vec::with_capacity(1423);
    for word in WORDS.split('|') {
        put_text(&mut all, word);
    }
    all.extend_from_slice(TEXT.as_bytes());
    all
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u32(u32::try_from(text.len()).expect("texts are short"));
    out.extend_from_slice(text.as_bytes());
}

/// Reads frames. What came is kept by the caller until a frame is whole.
#[derive(Debug)]
pub(in crate::http::streams) struct Decoder {
    inflate: Decompress,
    /// The data frame under way: its stream, what is left of it, and whether it is the last.
    data: Option<(u32, usize, bool)>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { inflate: Decompress::new(true), data: None }
    }
}

impl Decoder {
    /// Takes the next frame, or a piece of data, off the input; `None` if more must come first.
    ///
    /// # Errors
    /// If what came is no frame. The decoder must not be used again.
    pub(in crate::http::streams) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        if let Some((id, left, fin)) = self.data {
            return Ok(self.piece(input, id, left, fin));
        }
        if input.len() < 8 {
            return Ok(None);
        }
        let first = u32::from_be_bytes([input[0], input[1], input[2], input[3]]);
        let (flags, length) =
            (input[4], usize::from(input[5]) << 16 | usize::from(input[6]) << 8 | usize::from(input[7]));
        if first >> 31 == 0 {
            if first == 0 {
                return Err(Malformed("data of stream 0"));
            }
            input.advance(8);
            return Ok(self.piece(input, first, length, flags & FIN != 0));
        }
        if (first >> 16) & 0x7fff != u32::from(VERSION) {
            return Err(Malformed("a frame of another version than 3"));
        }
        if length > CONTROL_BYTES {
            return Err(Malformed("a control frame that is too long"));
        }
        if input.len() < 8 + length {
            return Ok(None);
        }
        input.advance(8);
        let payload = input.split_to(length).freeze();
        self.control((first & 0xffff) as u16, flags, payload).map(Some)
    }

    fn piece(&mut self, input: &mut BytesMut, id: u32, left: usize, fin: bool) -> Option<Frame> {
        let data = input.split_to(left.min(input.len())).freeze();
        let left = left - data.len();
        self.data = (left > 0).then_some((id, left, fin));
        (left == 0 || !data.is_empty()).then_some(Frame::Data { id, data, fin: fin && left == 0 })
    }

    fn control(&mut self, kind: u16, flags: u8, mut payload: Bytes) -> Result<Frame, Malformed> {
        let short = |payload: &Bytes, length: usize| match payload.len() < length {
            true => Err(Malformed("a control frame that is too short")),
            false => Ok(()),
        };
        let fin = flags & FIN != 0;
        let stream = |id: u32| match id & 0x7fff_ffff {
            0 => Err(Malformed("a frame about stream 0")),
            id => Ok(id),
        };
        Ok(match kind {
            1 => {
                short(&payload, 10)?;
                let id = stream(payload.get_u32())?;
                payload.advance(6); // the stream that it belongs to, its priority and its slot: not used
                Frame::SynStream { id, headers: self.headers(&payload)?, fin }
            }
            2 | 8 => {
                short(&payload, 4)?;
                let id = stream(payload.get_u32())?;
                let headers = self.headers(&payload)?;
                if kind == 2 { Frame::SynReply { id, headers, fin } } else { Frame::Headers { id, headers, fin } }
            }
            3 => {
                short(&payload, 8)?;
                Frame::Reset { id: stream(payload.get_u32())?, status: payload.get_u32() }
            }
            4 => {
                short(&payload, 4)?;
                let count = payload.get_u32() as usize;
                if payload.len() / 8 < count {
                    return Err(Malformed("fewer settings than it says"));
                }
                Frame::Settings((0..count).map(|_| (payload.get_u32(), payload.get_u32())).collect())
            }
            6 => {
                short(&payload, 4)?;
                Frame::Ping(payload.get_u32())
            }
            7 => {
                short(&payload, 8)?;
                Frame::GoAway { last: payload.get_u32() & 0x7fff_ffff, status: payload.get_u32() }
            }
            9 => {
                short(&payload, 8)?;
                Frame::WindowUpdate { id: payload.get_u32() & 0x7fff_ffff, delta: payload.get_u32() & 0x7fff_ffff }
            }
            _ => return Err(Malformed("a frame of an unknown type")),
        })
    }

    fn headers(&mut self, packed: &[u8]) -> Result<Headers, Malformed> {
        let mut block = Bytes::from(self.inflate(packed)?);
        let number = |block: &mut Bytes| match block.len() < 4 {
            true => Err(Malformed("headers that are cut off")),
            false => Ok(block.get_u32() as usize),
        };
        let count = number(&mut block)?;
        if count > HEADER_BYTES / 8 {
            return Err(Malformed("too many headers"));
        }
        let mut headers = Headers::new();
        for _ in 0..count {
            let mut text = || {
                let length = number(&mut block)?;
                if block.len() < length {
                    return Err(Malformed("headers that are cut off"));
                }
                Ok(String::from_utf8_lossy(&block.split_to(length)).into_owned())
            };
            let (name, value) = (text()?, text()?);
            headers.push((name.to_lowercase(), value));
        }
        Ok(headers)
    }

    fn inflate(&mut self, mut packed: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::with_capacity(512);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= HEADER_BYTES {
                    return Err(Malformed("headers that are too long"));
                }
                out.reserve(out.len());
            }
            let (read, written) = (self.inflate.total_in(), out.len());
            let result = self.inflate.decompress_vec(packed, &mut out, FlushDecompress::Sync);
            let read = usize::try_from(self.inflate.total_in() - read).unwrap_or_default();
            packed = packed.get(read..).unwrap_or_default();
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.inflate.set_dictionary(&dictionary());
                    set.map_err(|_| Malformed("headers packed with another dictionary"))?;
                }
                Err(_) => return Err(Malformed("headers that cannot be unpacked")),
                Ok(Status::StreamEnd) => return Ok(out),
                Ok(Status::Ok | Status::BufError) => {
                    let stuck = read == 0 && out.len() == written && out.len() < out.capacity();
                    if stuck || packed.is_empty() && out.len() < out.capacity() {
                        return Ok(out);
                    }
                }
            }
        }
    }
}

/// Writes frames.
#[derive(Debug)]
pub(in crate::http::streams) struct Encoder {
    deflate: Compress,
}

impl Default for Encoder {
    fn default() -> Self {
        let mut deflate = Compress::new(Compression::default(), true);
        deflate.set_dictionary(&dictionary()).expect("nothing is packed yet");
        Self { deflate }
    }
}

impl Encoder {
    /// The bytes of a frame. Data must be shorter than 16 MiB; ours is never longer than [`DATA_BYTES`].
    pub(in crate::http::streams) fn encode(&mut self, frame: &Frame) -> Vec<u8> {
        let fin_flag = |fin: bool| if fin { FIN } else { 0 };
        match frame {
            Frame::SynStream { id, headers, fin } => {
                let mut payload = Vec::new();
                payload.put_u32(*id);
                payload.put_slice(&[0; 6]);
                self.pack(headers, &mut payload);
                control(1, fin_flag(*fin), &payload)
            }
            Frame::SynReply { id, headers, fin } | Frame::Headers { id, headers, fin } => {
                let mut payload = Vec::new();
                payload.put_u32(*id);
                self.pack(headers, &mut payload);
                let kind = if matches!(frame, Frame::SynReply { .. }) { 2 } else { 8 };
                control(kind, fin_flag(*fin), &payload)
            }
            Frame::Reset { id, status } => control(3, 0, &two(*id, *status)),
            Frame::Settings(settings) => {
                let mut payload = Vec::new();
                payload.put_u32(u32::try_from(settings.len()).unwrap_or_default());
                payload.extend(settings.iter().flat_map(|(id, value)| two(*id, *value)));
                control(4, 0, &payload)
            }
            Frame::Ping(id) => control(6, 0, &id.to_be_bytes()),
            Frame::GoAway { last, status } => control(7, 0, &two(*last, *status)),
            Frame::WindowUpdate { id, delta } => control(9, 0, &two(*id, *delta)),
            Frame::Data { id, data, fin } => {
                let mut out = Vec::with_capacity(8 + data.len());
                out.put_u32(*id);
                put_length(&mut out, fin_flag(*fin), data.len());
                out.put_slice(data);
                out
            }
        }
    }

    fn pack(&mut self, headers: &Headers, out: &mut Vec<u8>) {
        let mut block = Vec::new();
        block.put_u32(u32::try_from(headers.len()).unwrap_or_default());
        for (name, value) in headers {
            put_text(&mut block, name);
            put_text(&mut block, value);
        }
        let mut rest = &block[..];
        loop {
            out.reserve(rest.len() + 64);
            let read = self.deflate.total_in();
            let packed = self.deflate.compress_vec(rest, out, FlushCompress::Sync);
            packed.expect("packing into memory cannot fail");
            rest = &rest[usize::try_from(self.deflate.total_in() - read).unwrap_or_default()..];
            if rest.is_empty() && out.len() < out.capacity() {
                return;
            }
        }
    }
}

fn two(first: u32, second: u32) -> [u8; 8] {
    (u64::from(first) << 32 | u64::from(second)).to_be_bytes()
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + payload.len());
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(&mut out, flags, payload.len());
    out.put_slice(payload);
    out
}

fn put_length(out: &mut Vec<u8>, flags: u8, length: usize) {
    out.put_u32(u32::from(flags) << 24 | u32::try_from(length & 0xff_ffff).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers() -> impl Strategy<Value = Headers> {
        prop::collection::vec(("[a-z-]{1,20}", "[ -~]{0,60}"), 0..8)
    }

    fn id() -> impl Strategy<Value = u32> {
        1_u32..0x7fff_ffff
    }

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            (id(), headers(), any::<bool>()).prop_map(|(id, headers, fin)| Frame::SynStream { id, headers, fin }),
            (id(), headers(), any::<bool>()).prop_map(|(id, headers, fin)| Frame::SynReply { id, headers, fin }),
            (id(), headers(), any::<bool>()).prop_map(|(id, headers, fin)| Frame::Headers { id, headers, fin }),
            (id(), any::<u32>()).prop_map(|(id, status)| Frame::Reset { id, status }),
            prop::collection::vec(any::<(u32, u32)>(), 0..4).prop_map(Frame::Settings),
            any::<u32>().prop_map(Frame::Ping),
            (id(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
            (id(), id()).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
            (id(), any::<Vec<u8>>(), any::<bool>()).prop_map(|(id, data, fin)| Frame::Data {
                id,
                data: data.into(),
                fin
            }),
        ]
    }

    /// All frames, the pieces of one data frame put together again.
    fn read(pieces: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<Frame>, Malformed> {
        let (mut decoder, mut input, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
        let mut partial: Option<Vec<u8>> = None;
        for piece in pieces {
            input.extend_from_slice(&piece);
            while let Some(frame) = decoder.decode(&mut input)? {
                let Frame::Data { id, data, fin } = frame else {
                    frames.push(frame);
                    continue;
                };
                let mut whole = partial.take().unwrap_or_default();
                whole.extend_from_slice(&data);
                match decoder.data {
                    Some(_) => partial = Some(whole),
                    None => frames.push(Frame::Data { id, data: whole.into(), fin }),
                }
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_are_read_as_they_were_written_wherever_they_were_cut(
            frames in prop::collection::vec(frame(), 0..12),
            size in 1_usize..200,
        ) {
            let mut encoder = Encoder::default();
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| encoder.encode(frame)).collect();
            prop_assert_eq!(read(bytes.chunks(size).map(<[u8]>::to_vec)), Ok(frames));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_grow(bytes: Vec<u8>, kind in 0_u16..12, length in 0_u32..300) {
            let _ = read([bytes.clone()]); // an error is an answer
            let mut whole = vec![0x80, 3];
            whole.put_u16(kind);
            whole.put_u32(length);
            whole.extend(bytes);
            let _ = read([whole]);
        }
    }

    #[test]
    fn the_dictionary_is_that_of_the_protocol() {
        let dictionary = dictionary();
        // Its Adler-32 stands in everything that is packed with it.
        let (a, b) = dictionary.iter().fold((1_u32, 0_u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        assert_eq!((dictionary.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn headers_that_unpack_to_more_than_they_may_are_refused() {
        let mut encoder = Encoder::default();
        let headers = vec![("a".to_owned(), "x".repeat(2 * HEADER_BYTES))];
        let bytes = encoder.encode(&Frame::SynStream { id: 1, headers, fin: false });
        assert!(bytes.len() < 1000, "{} bytes", bytes.len());
        assert_eq!(read([bytes]), Err(Malformed("headers that are too long")));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert!(read([vec![0; 8]]).is_err(), "stream 0");
        assert!(read([vec![0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]]).is_err(), "version 2");
        assert!(read([vec![0x80, 3, 0, 5, 0, 0, 0, 0]]).is_err(), "type 5");
        assert!(read([vec![0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]]).is_err(), "16 MiB of control");
    }
}
