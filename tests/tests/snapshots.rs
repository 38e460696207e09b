//! The shape of what people and machines read: the report's JSON without its numbers, and the memory map.
//! `INSTA_UPDATE=always` accepts changes.

use equant_tests::models::artifacts;
use serde_json::Value;

/// Replaces what may differ between machines and versions: numbers become `0`, lists keep their first element.
fn redact(value: &mut Value) {
    match value {
        Value::Number(_) => *value = Value::from(0),
        Value::String(text) if text.ends_with(".npz") || text.ends_with(".onnx") => {
            *value = Value::from("[path]");
        }
        Value::Array(items) => {
            items.truncate(1);
            items.iter_mut().for_each(redact);
        }
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, value)| match name.as_str() {
                "equant" => *value = Value::from("[version]"),
                // Words with numbers in them.
                "notes" => *value = Value::from("[notes]"),
                _ => redact(value),
            });
        }
        _ => {}
    }
}

/// Leaves out scales and zero points: calibration's float sums depend on the instructions a CPU has.
fn without_quantization(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_quantization),
        Value::Object(fields) => {
            fields.retain(|name, _| name != "scale" && name != "zero_point");
            fields.iter_mut().for_each(|(_, value)| without_quantization(value));
        }
        _ => {}
    }
}

#[test]
fn report_keeps_its_structure() {
    let json = artifacts("dscnn").report.to_json().expect("a report");
    let mut value: Value = serde_json::from_str(&json).expect("JSON");
    redact(&mut value);
    insta::assert_snapshot!(serde_json::to_string_pretty(&value).expect("JSON"));
}

#[test]
fn memory_map_is_as_before() {
    let mut value = serde_json::to_value(&artifacts("dscnn").report.memory).expect("JSON");
    without_quantization(&mut value);
    insta::assert_snapshot!(serde_json::to_string_pretty(&value).expect("JSON"));
}
