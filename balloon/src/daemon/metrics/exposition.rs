//! A snapshot as text. Pure; the formats are `prometheus-client`'s.

#![forbid(unsafe_code)]

use super::families::{
    BUILD, Build, GROUPS, INFO, Named, REFAULTS, REFUSALS, Refaults, Refusal, SHARED, VMS, WHOLE, ZONES,
};
use super::snapshot::Snapshot;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use std::fmt;

/// A format that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own, for whoever does not ask for OpenMetrics.
    Prometheus,
}

impl Format {
    /// The one to answer a client with that sent this `Accept`.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let open = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        if open { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its name in `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// `snapshot` in `format`.
#[must_use]
pub fn exposition(snapshot: Snapshot, format: Format) -> String {
    let mut registry = Registry::with_prefix("ballast");
    registry.register_collector(Box::new(snapshot));
    let mut output = String::new();
    let written = match format {
        Format::OpenMetrics => text::encode(&mut output, &registry),
        Format::Prometheus => prometheus_text::encode(&mut output, &registry),
    };
    // Memory takes whatever is written.
    debug_assert!(written.is_ok(), "{written:?}");
    output
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        BUILD.encode(encoder, [Build])?;
        for metric in &WHOLE {
            metric.encode(encoder, [&self.whole])?;
        }
        let refused = self.whole.admissions.refused();
        REFUSALS.encode(encoder, refused.map(|(reason, count)| Refusal { reason, count }))?;
        for metric in &GROUPS {
            metric.encode(encoder, &self.groups)?;
        }
        let named = self.vms.iter().map(|vm| Named { vm: vm.name.clone(), group: vm.group.clone() });
        INFO.encode(encoder, named)?;
        for metric in &VMS {
            metric.encode(encoder, &self.vms)?;
        }
        let refaults = self.vms.iter().flat_map(|vm| {
            let totals = vm.usage.totals;
            [("file", totals.refault_file), ("anon", totals.refault_anon)].map(|(kind, pages)| Refaults {
                vm: vm.name.clone(),
                kind,
                pages,
            })
        });
        REFAULTS.encode(encoder, refaults)?;
        for metric in &ZONES {
            metric.encode(encoder, &self.zones)?;
        }
        for metric in &SHARED {
            metric.encode(encoder, &self.shared)?;
        }
        Ok(())
    }
}
