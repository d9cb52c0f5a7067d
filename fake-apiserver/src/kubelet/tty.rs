//! A terminal for scripted programs: lines are edited, echoed and handed over when they are complete, as a kernel's line
//! discipline does.

/// What came of typed bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// For the program.
    pub(super) input: Vec<u8>,
    /// For the screen.
    pub(super) echo: Vec<u8>,
    /// Ctrl-C was typed.
    pub(super) interrupt: bool,
    /// Ctrl-D was typed on an empty line: the end of the input.
    pub(super) end: bool,
}

/// A line being typed.
#[derive(Debug, Default)]
pub(super) struct Line(Vec<u8>);

/// Bytes of a line; what is typed beyond is dropped with a bell (Linux: `N_TTY_BUF_SIZE`).
const LINE_BYTES: usize = 4096;

impl Line {
    /// Takes typed bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for byte in bytes {
            match byte {
                b'\r' | b'\n' => {
                    self.0.push(b'\n');
                    typed.input.append(&mut self.0);
                    typed.echo.extend_from_slice(b"\r\n");
                }
                0x7f | 0x08 => {
                    // One character, however many bytes it has.
                    while self.0.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
                    typed.echo.extend_from_slice(b"\x08 \x08");
                }
                0x15 => {
                    for _ in String::from_utf8_lossy(&self.0).chars() {
                        typed.echo.extend_from_slice(b"\x08 \x08");
                    }
                    self.0.clear();
                }
                0x03 => {
                    self.0.clear();
                    typed.echo.extend_from_slice(b"^C");
                    typed.interrupt = true;
                }
                0x04 if self.0.is_empty() => typed.end = true,
                0x04 => typed.input.append(&mut self.0),
                byte if self.0.len() + 1 < LINE_BYTES => {
                    self.0.push(*byte);
                    typed.echo.push(*byte);
                }
                _ => typed.echo.push(0x07),
            }
        }
        typed
    }
}

/// What a program prints, as a terminal shows it: each newline with a carriage return.
pub(super) fn printed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    for byte in bytes {
        if *byte == b'\n' {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing_before_enter(b"ls", b"", b"ls")]
    #[case::enter(b"ls\r", b"ls\n", b"ls\r\n")]
    #[case::backspace(b"lx\x7fs\r", b"ls\n", b"lx\x08 \x08s\r\n")]
    #[case::backspace_over_two_bytes("ä\x7f\r".as_bytes(), b"\n", b"\xc3\xa4\x08 \x08\r\n")]
    #[case::kill_line(b"ab\x15c\r", b"c\n", b"ab\x08 \x08\x08 \x08c\r\n")]
    #[case::ctrl_d_hands_over_what_is_there(b"ab\x04", b"ab", b"ab")]
    fn typing(#[case] typed: &[u8], #[case] input: &[u8], #[case] echo: &[u8]) {
        let result = Line::default().feed(typed);
        assert_eq!((result.input.as_slice(), result.echo.as_slice()), (input, echo));
        assert!(!result.interrupt && !result.end);
    }

    #[test]
    fn ctrl_c_interrupts_and_forgets_the_line_and_ctrl_d_on_an_empty_line_ends() {
        let mut line = Line::default();
        let typed = line.feed(b"ab\x03");
        assert!(typed.interrupt && typed.input.is_empty());
        assert!(line.feed(b"\x04").end);
    }

    #[test]
    fn newlines_get_a_carriage_return() {
        assert_eq!(printed(b"a\nb"), b"a\r\nb");
    }
}
