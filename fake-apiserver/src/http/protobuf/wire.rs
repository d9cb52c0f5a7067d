//! The wire format: tags, varints, lengths, with the errors of upstream's generated readers (`generated.pb.go`).

/// What a field's tag is followed by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// A tag: a field's number and how its value is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tag {
    pub(super) number: i32,
    pub(super) kind: u64,
}

/// The bytes of one message.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

const END: &str = "unexpected EOF";

/// Levels of groups that are skipped; upstream has no bound, and no client writes a group.
const GROUPS: usize = 100;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(END)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".into())
    }

    /// The next tag of a message that upstream calls `message`.
    pub(super) fn tag(&mut self, message: &str) -> Result<Tag, String> {
        let wire = self.varint()?;
        let tag = Tag { number: (wire >> 3) as i32, kind: wire & 7 };
        if tag.kind == 4 {
            return Err(format!("proto: {message}: wiretype end group for non-group"));
        }
        if tag.number <= 0 {
            return Err(format!("proto: {message}: illegal tag {} (wire type {wire})", tag.number));
        }
        Ok(tag)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(END)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn delimited(&mut self) -> Result<&'a [u8], String> {
        let length = i64::try_from(self.varint()?).map_err(|_| "proto: negative length found during unmarshaling")?;
        self.take(usize::try_from(length).map_err(|_| END)?)
    }

    /// The value behind a tag; `None` where the way of writing is one that no field of ours has.
    pub(super) fn value(&mut self, tag: Tag) -> Result<Option<Wire<'a>>, String> {
        Ok(match tag.kind {
            0 => Some(Wire::Varint(self.varint()?)),
            1 => {
                let bytes = self.take(8)?;
                let bytes = <[u8; 8]>::try_from(bytes).map_err(|_| END)?;
                Some(Wire::Fixed64(u64::from_le_bytes(bytes)))
            }
            2 => Some(Wire::Bytes(self.delimited()?)),
            _ => None,
        })
    }

    /// Passes over the value behind a tag.
    pub(super) fn skip(&mut self, tag: Tag) -> Result<(), String> {
        let mut kind = tag.kind;
        let mut depth = 0;
        loop {
            match kind {
                0 => drop(self.varint()?),
                1 => drop(self.take(8)?),
                2 => drop(self.delimited()?),
                3 if depth < GROUPS => depth += 1,
                4 if depth > 0 => depth -= 1,
                4 => return Err("proto: unexpected end of group".into()),
                5 => drop(self.take(4)?),
                kind => return Err(format!("proto: illegal wireType {kind}")),
            }
            if depth == 0 {
                return Ok(());
            }
            kind = self.varint()? & 7;
        }
    }
}
