//! One metric of many things, and how its series are written. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric,
    GaugeValueEncoder, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::borrow::Borrow;
use std::fmt;

/// A number, as exact as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Real(f64),
}

/// One metric of each `T`.
pub(super) struct Metric<T> {
    kind: MetricType,
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    value: fn(&T) -> Option<Value>,
}

/// What tells one series of a metric from another.
pub(super) trait Labelled {
    fn labels(&self) -> Vec<(&'static str, &str)>;
}

pub(super) const fn metric<T>(
    kind: MetricType,
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    value: fn(&T) -> Option<Value>,
) -> Metric<T> {
    Metric { kind, name, unit, help, value }
}

impl<T: Labelled> Metric<T> {
    /// Its series of all `items`.
    pub(super) fn encode<I>(&self, encoder: &mut DescriptorEncoder<'_>, items: I) -> fmt::Result
    where
        I: IntoIterator,
        I::Item: Borrow<T>,
    {
        let mut encoder = encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), self.kind)?;
        for item in items {
            let item = item.borrow();
            let Some(value) = (self.value)(item) else { continue };
            let labels = item.labels();
            let labels = labels.as_slice();
            let series = encoder.encode_family(&labels)?;
            value.encode(self.kind, series)?;
        }
        Ok(())
    }
}

impl Value {
    fn encode(self, kind: MetricType, series: MetricEncoder<'_>) -> fmt::Result {
        match kind {
            MetricType::Counter => ConstCounter::new(self).encode(series),
            _ => ConstGauge::new(self).encode(series),
        }
    }
}

impl EncodeGaugeValue for Value {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => EncodeGaugeValue::encode(value, encoder),
            Self::Signed(value) => EncodeGaugeValue::encode(value, encoder),
            Self::Real(value) => EncodeGaugeValue::encode(value, encoder),
        }
    }
}

impl EncodeCounterValue for Value {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => EncodeCounterValue::encode(value, encoder),
            Self::Signed(value) => EncodeCounterValue::encode(&(*value as f64), encoder),
            Self::Real(value) => EncodeCounterValue::encode(value, encoder),
        }
    }
}

pub(super) fn count(value: u64) -> Option<Value> {
    Some(Value::Unsigned(value))
}

pub(super) fn size(value: usize) -> Option<Value> {
    u64::try_from(value).ok().and_then(count)
}

pub(super) fn flag(value: bool) -> Option<Value> {
    count(value.into())
}

pub(super) fn thousandths(value: u64) -> Option<Value> {
    Some(Value::Real(value as f64 / 1e3))
}

pub(super) fn millionths(value: u64) -> Option<Value> {
    Some(Value::Real(value as f64 / 1e6))
}
