//! [`Utf8Decoder`]: text that comes in pieces.

/// Turns bytes that come in pieces into text, without breaking a character that lies on the border of two.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::Utf8Decoder;
///
/// let mut decoder = Utf8Decoder::default();
/// let euro = "€".as_bytes();
/// assert_eq!(decoder.push(&euro[..2]), "");
/// assert_eq!(decoder.push(&euro[2..]), "€");
/// assert_eq!(decoder.push(&[b'a', 0xFF, b'b']), "a\u{FFFD}b");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Utf8Decoder {
    /// The start of a character, at most three bytes.
    rest: Vec<u8>,
}

impl Utf8Decoder {
    /// The text of what has come, up to the last whole character. What is no UTF-8 becomes `\u{FFFD}`.
    ///
    /// # Examples
    /// ```
    /// let mut decoder = agent_sandbox_sdk::Utf8Decoder::default();
    /// assert_eq!(decoder.push(b"gr\xc3"), "gr");
    /// assert_eq!(decoder.push(b"\xbcn"), "ün");
    /// ```
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let mut text = String::new();
        let mut keep = 0;
        for chunk in self.rest.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                keep = chunk.invalid().len();
                text.push(char::REPLACEMENT_CHARACTER);
            } else {
                keep = 0;
            }
        }
        let tail = &self.rest[self.rest.len() - keep..];
        let unfinished = keep > 0 && std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
        if unfinished && self.rest.ends_with(tail) && self.last_is_invalid(keep) {
            text.pop();
            self.rest.drain(..self.rest.len() - keep);
        } else {
            self.rest.clear();
        }
        text
    }

    /// Whether the invalid bytes lie at the very end, where more may follow.
    fn last_is_invalid(&self, keep: usize) -> bool {
        self.rest.utf8_chunks().last().is_some_and(|chunk| chunk.invalid().len() == keep)
    }

    /// The end: what is left of a character that was cut off.
    ///
    /// # Examples
    /// ```
    /// let mut decoder = agent_sandbox_sdk::Utf8Decoder::default();
    /// assert_eq!(decoder.push(b"\xe2\x82"), "");
    /// assert_eq!(decoder.finish(), "\u{FFFD}");
    /// ```
    pub fn finish(self) -> &'static str {
        if self.rest.is_empty() { "" } else { "\u{FFFD}" }
    }
}
