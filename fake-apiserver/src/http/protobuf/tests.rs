use std::{fs, path::PathBuf, sync::LazyLock};

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;

/// Bodies as Go's client writes them, with the JSON that Go makes of the same object.
static SAMPLES: LazyLock<Vec<(String, Vec<u8>, Value)>> = LazyLock::new(|| {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/protobuf");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let bodies = paths.filter(|path| path.extension().is_some_and(|extension| extension == "pb"));
    let sample = |path: PathBuf| {
        let json = fs::read(path.with_extension("json")).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, fs::read(&path).unwrap(), serde_json::from_slice(&json).unwrap())
    };
    bodies.map(sample).collect()
});

fn decode(bytes: &[u8]) -> Result<Value, Unread> {
    Envelope::read(bytes, "v1", "ConfigMap")?.open()
}

#[test]
fn what_go_writes_is_read_as_what_go_reads() {
    assert!(SAMPLES.len() >= 20, "the samples are no longer found; look at this test");
    for (name, body, expected) in SAMPLES.iter() {
        assert_eq!(decode(body).unwrap(), *expected, "{name}");
    }
}

#[test]
fn the_table_has_a_message_for_every_builtin_kind() {
    let facts: BTreeMap<String, Value> =
        serde_json::from_str(include_str!("../../registry/builtin-resources.json")).unwrap();
    for (path, row) in &facts {
        let (api_version, _) = path.rsplit_once('/').unwrap();
        let kind = row["kind"].as_str().unwrap();
        assert!(table().find(api_version, kind).is_some(), "{api_version} {kind}");
    }
}

/// A field of bytes.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(content);
    out
}

/// A body of a kind around a message.
fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
}

#[rstest]
#[case(b"", "empty data")]
#[case(b"k8s", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
#[case(b"{}", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
#[case(b"k8s\0", "empty body")]
#[case(b"k8s\0\x0a", "unexpected EOF")]
#[case(b"k8s\0\x0a\x05a", "unexpected EOF")]
#[case(b"k8s\0\x08\x00", "proto: wrong wireType = 0 for field TypeMeta")]
#[case(b"k8s\0\x0c", "proto: Unknown: wiretype end group for non-group")]
#[case(b"k8s\0\x02", "proto: Unknown: illegal tag 0 (wire type 2)")]
#[case(b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "proto: integer overflow")]
#[case(b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "proto: negative length found during unmarshaling")]
fn a_body_without_an_envelope_is_refused_in_upstreams_words(#[case] body: &[u8], #[case] expected: &str) {
    assert_eq!(decode(body).unwrap_err(), Unread { claimed: None, why: expected.into() });
}

#[rstest]
#[case(b"\x08\x01", "proto: wrong wireType = 0 for field ObjectMeta")]
#[case(b"\x0a\x02\x28\x01", "proto: wrong wireType = 0 for field UID")]
#[case(b"\x0a\x02\x3a\x00", "proto: wrong wireType = 2 for field Generation")]
#[case(b"\x0a\x7f", "unexpected EOF")]
#[case(b"\x7f", "proto: illegal wireType 7")]
#[case(b"\x7b\x08\x01", "unexpected EOF")]
fn an_object_that_does_not_read_is_refused_with_its_type(#[case] raw: &[u8], #[case] expected: &str) {
    let unread = decode(&body("v1", "ConfigMap", raw)).unwrap_err();
    assert_eq!(unread, Unread { claimed: Some(("ConfigMap".into(), "v1".into())), why: expected.into() });
}

#[test]
fn a_body_that_does_not_say_its_type_is_of_the_one_expected() {
    let object = decode(&[MAGIC.to_vec(), bytes(2, &bytes(1, &bytes(1, b"one")))].concat()).unwrap();
    assert_eq!(object, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}));
}

#[test]
fn of_an_unknown_kind_only_the_type_is_read() {
    let object = decode(&body("v1", "Nothing", b"\xff\xff")).unwrap();
    assert_eq!(object, json!({"apiVersion": "v1", "kind": "Nothing"}));
}

#[test]
fn delete_options_are_the_same_in_every_group() {
    let object = decode(&body("apps/v1", "DeleteOptions", &[8, 30])).unwrap();
    assert_eq!(object["gracePeriodSeconds"], 30);
}

#[test]
fn a_message_that_stands_there_twice_is_merged_and_unknown_fields_are_passed_over() {
    let metadata = [bytes(1, &bytes(1, b"one")), vec![0x78, 1], bytes(1, &bytes(3, b"here"))].concat();
    let object = decode(&body("v1", "ConfigMap", &metadata)).unwrap();
    assert_eq!(object["metadata"], json!({"name": "one", "namespace": "here"}));
}

#[test]
fn nesting_is_bounded() {
    let mut schema = Vec::new();
    for _ in 0..150 {
        schema = [vec![0xe2, 0x01], length(&schema)].concat(); // `not`, the member 28
    }
    let validation = bytes(1, &schema);
    let version = bytes(4, &validation);
    let raw = bytes(2, &bytes(7, &version));
    let unread = decode(&body("apiextensions.k8s.io/v1", "CustomResourceDefinition", &raw)).unwrap_err();
    assert_eq!(unread.why, "exceeded max depth");
}

/// Bytes behind their length.
fn length(content: &[u8]) -> Vec<u8> {
    bytes(1, content)[1..].to_vec()
}

#[test]
fn messages_are_bounded() {
    let containers = bytes(2, &[]).repeat(limits::PROTOBUF_MESSAGES + 1);
    let unread = decode(&body("v1", "Pod", &bytes(2, &containers))).unwrap_err();
    assert_eq!(unread.why, "more than 200000 messages");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(raw in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
        let _ = decode(&raw);
        let kinds: Vec<_> = table().kinds().collect();
        let (api_version, kind) = at.get(&kinds);
        let _ = decode(&body(api_version, kind, &raw));
    }

    #[test]
    fn no_damage_to_a_body_makes_the_reader_panic(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut body = which.get(&SAMPLES).1.clone();
        for (at, byte) in damage {
            *at.get_mut(&mut body) = byte;
        }
        let _ = decode(&body);
    }
}
