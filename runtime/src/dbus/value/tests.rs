//! Values as bytes, and bytes that are none.

use super::*;

fn written(value: &Value) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.put(value);
    writer.0
}

fn samples() -> Vec<Value> {
    let property =
        |name: &str, value| Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))]);
    let pair = Type::Struct(vec![Type::Text, Type::Variant]);
    vec![
        Value::Byte(7),
        Value::Bool(true),
        Value::Int16(-2),
        Value::Uint16(2),
        Value::Int32(-3),
        Value::Uint32(3),
        Value::Int64(-4),
        Value::Uint64(u64::MAX),
        Value::Double(1.5),
        Value::text("hällo"),
        Value::Path("/a/b".into()),
        Value::Signature("a(sv)".into()),
        Value::Array(Type::Uint64, vec![]),
        Value::Array(Type::Byte, vec![Value::Byte(1), Value::Byte(2)]),
        Value::Array(
            pair,
            vec![
                property("Delegate", Value::Bool(true)),
                property("PIDs", Value::Array(Type::Uint32, vec![Value::Uint32(42)])),
            ],
        ),
    ]
}

#[test]
fn what_is_written_is_read_back() {
    for value in samples() {
        let bytes = written(&value);
        let mut reader = Reader::new(&bytes, false);
        assert_eq!(reader.value(&value.kind()).unwrap(), value);
        assert!(reader.is_empty());
    }
}

#[test]
fn bytes_are_those_of_the_specification() {
    assert_eq!(written(&Value::text("foo")), b"\x03\0\0\0foo\0");
    assert_eq!(written(&Value::Signature("ss".into())), b"\x02ss\0");
    let array = Value::Array(Type::Int64, vec![Value::Int64(5)]);
    assert_eq!(
        written(&array),
        [8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
        "the example of the specification: the padding is not counted"
    );
    let variant = Value::Variant(Box::new(Value::Uint32(1)));
    assert_eq!(written(&variant), [1, b'u', 0, 0, 1, 0, 0, 0]);
}

#[test]
fn either_byte_order_is_read() {
    let mut reader = Reader::new(&[0, 0, 0, 5], true);
    assert_eq!(reader.value(&Type::Uint32).unwrap(), Value::Uint32(5));
}

#[test]
fn a_part_of_a_value_is_none() {
    for value in samples() {
        let bytes = written(&value);
        for end in 0..bytes.len() {
            let read = Reader::new(&bytes[..end], false).value(&value.kind());
            assert!(read.is_err(), "{value:?} from {end} bytes");
        }
    }
}

#[test]
fn hostile_bytes_are_refused_or_read_and_never_worse() {
    let kinds = Type::parse_all("a(sv)yaavgoa(ya(tv))").unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..20_000 {
        let sample = &samples()[(random() % 15) as usize];
        let mut bytes = written(sample);
        for _ in 0..=random() % 4 {
            let at = (random() as usize) % bytes.len();
            bytes[at] = random() as u8;
        }
        let mut reader = Reader::new(&bytes, round % 7 == 0);
        let _ = reader.value(&sample.kind());
        let _ = kinds
            .iter()
            .try_for_each(|kind| reader.value(kind).map(drop));
    }
}

#[test]
fn nesting_is_bounded() {
    assert!(Type::parse_all(&"a".repeat(100)).is_err());
    assert!(Type::parse_all(&format!("{}y", "a".repeat(100))).is_err());
    assert!(Type::parse_all(&"(".repeat(100)).is_err());
    for bad in ["()", "(y", "a", "z", "h", "a{sv}", &"y".repeat(256)] {
        assert!(Type::parse_all(bad).is_err(), "{bad:?}");
    }
    // Variants carry their own types, so only the bytes nest.
    let mut bytes = [1, b'v', 0].repeat(100);
    bytes.extend([1, b'y', 0, 9]);
    assert!(Reader::new(&bytes, false).value(&Type::Variant).is_err());
}

#[test]
fn signatures_are_spelled_as_they_are_read() {
    for text in ["a(sv)", "a(sa(sv))", "uoss", "aay", "(nqixdg)"] {
        let mut spelled = String::new();
        let types = Type::parse_all(text).unwrap();
        types.iter().for_each(|kind| kind.spell(&mut spelled));
        assert_eq!(spelled, text);
    }
}
