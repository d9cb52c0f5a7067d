//! The channels of remote commands over WebSocket: subprotocols `v4.channel.k8s.io` and `v5.channel.k8s.io`.
//!
//! Each binary message is a byte that names the channel, and data. Version 5 adds a channel that closes another one.
//! (`k8s.io/apimachinery/pkg/util/remotecommand/constants.go`.)

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{base::Status, kubelet::Size};

/// Standard input.
pub(super) const STDIN: u8 = 0;
/// Standard output.
pub(super) const STDOUT: u8 = 1;
/// Standard error.
pub(super) const STDERR: u8 = 2;
/// How it ended, as a Status.
pub(super) const ERROR: u8 = 3;
/// Sizes of the terminal.
const RESIZE: u8 = 4;
/// Closes the channel that its data names.
const CLOSE: u8 = 255;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    V4,
    V5,
}

impl Protocol {
    /// Its name in the handshake.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }

    /// The newest that a client offers.
    pub(super) fn choose(offered: &[String]) -> Option<Self> {
        [Self::V5, Self::V4].into_iter().find(|protocol| offered.iter().any(|name| name == protocol.name()))
    }
}

/// A message of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Data for standard input.
    Stdin(Bytes),
    /// The end of standard input.
    EndOfStdin,
    /// The terminal's new size.
    Resize(Size),
    /// Nothing that concerns us.
    Other,
}

/// Reads a message.
pub(super) fn read(protocol: Protocol, mut data: Bytes) -> Message {
    if data.is_empty() {
        return Message::Other;
    }
    let channel = data.split_to(1)[0];
    match channel {
        STDIN => Message::Stdin(data),
        RESIZE => size(&data).map_or(Message::Other, Message::Resize),
        CLOSE if protocol == Protocol::V5 && data.first() == Some(&STDIN) => Message::EndOfStdin,
        _ => Message::Other,
    }
}

/// A terminal's size, as a client tells it.
pub(super) fn size(json: &[u8]) -> Option<Size> {
    let size: Value = serde_json::from_slice(json).ok()?;
    let side = |name: &str| size.get(name).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
    Some(Size { width: side("Width")?, height: side("Height")? })
}

/// A message with data of a channel.
pub(super) fn write(channel: u8, data: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(data.len() + 1);
    message.push(channel);
    message.extend_from_slice(data);
    message.into()
}

/// The Status of a command that ended: `Success`, or the exit code as a cause (`pkg/kubelet/.../exec.go` and the text of
/// containerd's error).
pub(super) fn exit_status(command: &[String], code: i32) -> Value {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" });
    }
    let words = command.join(" ");
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!(
            "command terminated with non-zero exit code: error executing command [{words}], exit code {code}"
        ),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

/// The Status of a command that could not be called.
pub(super) fn failure(status: &Status) -> Value {
    let mut value = status.to_object().into_value();
    if let Some(value) = value.as_object_mut() {
        value.remove("kind");
        value.remove("apiVersion");
    }
    value
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::stdin(Protocol::V4, b"\x00abc", Message::Stdin(Bytes::from_static(b"abc")))]
    #[case::resize(Protocol::V5, b"\x04{\"Width\":80,\"Height\":24}", Message::Resize(Size { width: 80, height: 24 }))]
    #[case::resize_of_nonsense(Protocol::V5, b"\x04{\"Width\":-1}", Message::Other)]
    #[case::close(Protocol::V5, b"\xff\x00", Message::EndOfStdin)]
    #[case::close_of_another(Protocol::V5, b"\xff\x01", Message::Other)]
    #[case::no_close_in_4(Protocol::V4, b"\xff\x00", Message::Other)]
    #[case::wrong_way(Protocol::V5, b"\x01abc", Message::Other)]
    #[case::nothing(Protocol::V5, b"", Message::Other)]
    fn messages(#[case] protocol: Protocol, #[case] data: &'static [u8], #[case] message: Message) {
        assert_eq!(read(protocol, Bytes::from_static(data)), message);
    }

    #[rstest]
    #[case(&["v4.channel.k8s.io", "v5.channel.k8s.io"], Some(Protocol::V5))]
    #[case(&["channel.k8s.io", "v4.channel.k8s.io"], Some(Protocol::V4))]
    #[case(&["base64.channel.k8s.io"], None)]
    #[case(&[], None)]
    fn the_newest_protocol_is_chosen(#[case] offered: &[&str], #[case] chosen: Option<Protocol>) {
        let offered: Vec<String> = offered.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(Protocol::choose(&offered), chosen);
    }

    #[test]
    fn an_exit_code_is_a_cause() {
        let status = exit_status(&["sh".into(), "-c".into(), "exit 3".into()], 3);
        assert_eq!(status["details"]["causes"][0], json!({ "reason": "ExitCode", "message": "3" }));
        assert_eq!(
            status["message"],
            "command terminated with non-zero exit code: error executing command [sh -c exit 3], exit code 3"
        );
        assert_eq!(exit_status(&[], 0), json!({ "metadata": {}, "status": "Success" }));
    }
}
