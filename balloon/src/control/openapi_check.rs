//! Whether a document is as an OpenAPI file describes it, for the tests of all that is described so, here and in `vmm`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::{Value, json};

/// Checks `value` against a schema, strictly: what the schema does not know is a fault too. Only the keywords that
/// the document uses are known here, and others are refused.
///
/// # Panics
/// It is not as described.
pub fn check(openapi: &Value, schema: &Value, value: &Value, at: &str) {
    for (keyword, argument) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$ref" => {
                let path = argument.as_str().unwrap().strip_prefix('#').unwrap();
                check(
                    openapi,
                    openapi.pointer(path).unwrap_or_else(|| panic!("{path} is nowhere")),
                    value,
                    at,
                );
            }
            "type" => {
                let kind = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
                    Value::Number(_) => "number",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                };
                let kinds = argument.as_array().cloned().unwrap_or_else(|| vec![argument.clone()]);
                assert!(kinds.contains(&json!(kind)), "{at} is {kind}");
            }
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let schema = argument.get(name).unwrap_or_else(|| panic!("{at}.{name} is not described"));
                    check(openapi, schema, value, &format!("{at}.{name}"));
                }
            }
            "required" => {
                for name in argument.as_array().unwrap().iter().filter(|_| !value.is_null()) {
                    assert!(value.get(name.as_str().unwrap()).is_some(), "{at} has no {name}");
                }
            }
            "additionalProperties" if argument.is_object() => {
                for value in value.as_object().into_iter().flat_map(|object| object.values()) {
                    check(openapi, argument, value, at);
                }
            }
            "items" => {
                value.as_array().unwrap().iter().for_each(|value| check(openapi, argument, value, at));
            }
            "minimum" => assert!(value.as_f64().is_none_or(|v| v >= argument.as_f64().unwrap()), "{at}"),
            "maximum" => assert!(value.as_f64().is_none_or(|v| v <= argument.as_f64().unwrap()), "{at}"),
            "enum" => assert!(argument.as_array().unwrap().contains(value), "{at} is {value}"),
            "const" => assert_eq!(argument, value, "{at}"),
            "minProperties" => assert!(value.as_object().unwrap().len() as u64 >= argument.as_u64().unwrap()),
            "maxProperties" => assert!(value.as_object().unwrap().len() as u64 <= argument.as_u64().unwrap()),
            "description" | "additionalProperties" => {}
            other => panic!("{at}: the keyword {other} is not known to this test"),
        }
    }
}
